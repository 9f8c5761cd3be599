//! The macro that makes tests of the checks.

/// Makes a test of every part of the contract, in a module `conformance`.
///
/// ```text
/// gptq_conformance::suite!(my_backend::REGISTRATION);
/// gptq_conformance::suite!(my_backend::REGISTRATION, device = "cuda:0");
/// gptq_conformance::suite!(my_backend::REGISTRATION, device = "cpu", options = &["my_backend.threads=1"]);
/// ```
///
/// `device` is `cpu` where nothing is said. `options` is an expression of type `&[&str]`, evaluated by each test: what
/// the backend is opened with. Either may be left out. Two suites in one file need a module each.
///
/// Where the device cannot be used on this machine, the tests print the reason and pass; with the environment variable
/// `GPTQ_REQUIRE_DEVICE` set, they fail. They always fail where the backend refuses the CPU or that kind of device.
#[macro_export]
macro_rules! suite {
    (@else $default:expr) => { $default };
    (@else $default:expr, $given:expr) => { $given };
    ($registration:expr $(, device = $device:expr)? $(, options = $options:expr)? $(,)?) => {
        #[cfg(test)]
        mod conformance {
            #[allow(unused_imports)]
            use super::*;

            fn check(name: &str, company: $crate::Company, check: $crate::Check) {
                let result = $crate::Target::new($registration, $crate::suite!(@else "cpu" $(, $device)?))
                    .and_then(|target| target.with_options($crate::suite!(@else &[] $(, $options)?)))
                    .and_then(|target| $crate::run(&target, name, company, check));
                if let Err(problem) = result {
                    panic!("{problem}");
                }
            }

            #[test]
            fn the_registration_is_one_that_users_can_ask_for() {
                let target = $crate::Target::new($registration, $crate::suite!(@else "cpu" $(, $device)?));
                if let Err(problem) = target.and_then(|target| $crate::checks::registration(&target)) {
                    panic!("{}: {problem}", $registration.id);
                }
            }

            $crate::contract!(contract_tests);
        }
    };
}

/// Every part of the contract: a sentence, the check that holds it, and whether it bears company. [`suite!`] and
/// [`CONTRACT`](crate::checks::CONTRACT) are both made of it, by a macro of this crate that takes it.
#[doc(hidden)]
#[macro_export]
macro_rules! contract {
    ($maker:ident) => {
        $crate::$maker! {
            what_the_capabilities_declare_is_so => declared_edges, Others;
            every_pair_of_factors_is_within_the_bound => every_pair_of_factors, Others;
            any_number_of_rows_is_right => any_number_of_rows, Others;
            a_row_of_nan_spoils_no_other_row => a_row_of_nan_spoils_no_other, Others;
            the_bias_is_added_once_to_every_row => bias, Others;
            rows_in_act_order_find_their_groups => act_order, Others;
            out_is_written_whole_and_nothing_beside_it => out_is_written_whole, Others;
            x_and_out_may_start_at_any_element => any_alignment, Others;
            the_same_input_gives_the_same_bits => same_bits_every_time, Others;
            zero_points_mean_the_same_in_every_encoding => zero_encodings, Others;
            an_index_without_order_changes_nothing => g_idx_without_order, Others;
            converting_twice_is_converting_once => converting_twice, Others;
            packed_layers_stay_as_they_were => packed_layers_stay, Others;
            the_maximum_input_length_changes_between_calls => length_changes_between_calls, Others;
            the_maximum_input_length_changes_while_threads_run => length_changes_under_threads, Others;
            a_context_with_little_scratch_is_still_right => little_scratch, Others;
            threads_share_a_model_with_contexts_of_their_own => threads_share_a_model, Others;
            two_models_in_one_process_never_meet => two_models, Others;
            two_models_get_calls_by_turns_and_none_waits => queued_by_turns, Others;
            two_threads_queue_calls_on_two_streams => queued_by_threads, Others;
            dropping_a_model_frees_what_it_held => dropping_frees, Nobody;
            memory_that_runs_out_is_an_error_and_leaves_nothing => memory_runs_out, Nobody;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_tests {
    ($($name:ident => $check:ident, $company:ident;)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name), $crate::Company::$company, $crate::checks::$check);
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_table {
    ($($name:ident => $check:ident, $company:ident;)*) => {
        &[$((stringify!($name), $crate::Company::$company, $crate::checks::$check)),*]
    };
}
