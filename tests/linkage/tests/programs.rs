//! What programs say about the backends that they have. Each is the whole text that a user sees.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::Path;
use std::process::Command;

use gptq_core::backend::Registry;

const BOTH: &str = "plug_one     runs 1 of 1 layers\nplug_two     runs 0 of 1 layers, could run 1";
const EMPTY: &str = "error: no backend is linked into this program; depend on a backend crate and name it in a source \
                     file (`use gptq_torch_fallback as _;`), or pass its REGISTRATION to Registry::with. A crate that \
                     only Cargo.toml names is not linked; two versions of gptq-core in one program have a registry \
                     each (`cargo tree -d` shows them)";

fn says(program: &str, arguments: &[&Path]) -> String {
    let run = Command::new(program).args(arguments).output().unwrap();
    assert!(run.status.success(), "{program}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_crate_that_only_cargo_toml_names_is_not_linked_and_the_error_says_which_line_to_add() {
    assert_eq!(says(env!("CARGO_BIN_EXE_absent"), &[]), EMPTY);
}

#[test]
fn a_test_is_a_program_of_its_own_and_has_what_it_names() {
    assert_eq!(Registry::linked().iter().len(), 0, "this file names no backend");
}

#[test]
fn an_anonymous_use_links_every_backend_of_a_crate() {
    assert_eq!(says(env!("CARGO_BIN_EXE_anonymous"), &[]), BOTH);
}

#[test]
fn a_library_that_names_a_backend_links_it_for_the_programs_above() {
    assert_eq!(says(env!("CARGO_BIN_EXE_facade"), &[]), BOTH);
}

#[test]
fn a_registration_that_is_passed_needs_no_linker() {
    assert_eq!(says(env!("CARGO_BIN_EXE_explicit"), &[]), "plug_two     runs 1 of 1 layers");
}

#[test]
fn a_name_that_nobody_has_is_refused_with_those_there_are() {
    assert_eq!(
        says(env!("CARGO_BIN_EXE_misspelt"), &[]),
        "error: backend `plug_won` is not linked into this program; linked: plug_one, plug_two; depend on its crate \
         and name it in a source file (`use its_crate as _;`)"
    );
}

#[test]
fn two_backends_of_one_name_are_an_error_that_names_them() {
    assert_eq!(
        says(env!("CARGO_BIN_EXE_twins"), &[]),
        "error: two linked backends are both called `plug_one`; remove one, or rename it in its registration"
    );
}

#[test]
fn a_backend_built_for_another_interface_is_refused_and_not_called() {
    let built_for = "it was built for version 2 of the backend interface, this program has 1; rebuild it";
    assert_eq!(
        says(env!("CARGO_BIN_EXE_other_version"), &[]),
        format!(
            "from_another_time not usable on cpu: {built_for}\nplug_one     runs 1 of 1 layers\nplug_two     runs 0 of \
             1 layers, could run 1\nerror: backend `from_another_time` cannot run on cpu: {built_for}"
        )
    );
}

#[cfg(target_os = "linux")]
mod c {
    //! The same library for a program in C, and for a program that loads it while it runs.

    use std::path::PathBuf;

    use super::*;

    /// A file that cargo built beside this test.
    fn built(name: &str) -> PathBuf {
        let file = std::env::current_exe().unwrap().with_file_name(name);
        assert!(file.is_file(), "{}: cargo did not put it there", file.display());
        file
    }

    /// Compiles main.c with the C compiler that rustc links with too, and runs it.
    fn linked_with(name: &str, libraries: &[&str]) -> String {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
        cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/main.c")).args(libraries);
        // What the standard library needs of the system.
        cc.args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program);
        let run = cc.output().unwrap();
        assert!(run.status.success(), "{cc:?}: {}", String::from_utf8_lossy(&run.stderr));
        says(program.to_str().unwrap(), &[])
    }

    #[test]
    fn an_archive_gives_a_c_linker_no_backend_that_nothing_refers_to() {
        let archive = built("libgptq_linkage_library.a");
        assert_eq!(linked_with("plain", &[archive.to_str().unwrap()]), EMPTY);
    }

    #[test]
    fn an_archive_that_is_linked_whole_has_every_backend() {
        let archive = built("libgptq_linkage_library.a");
        let whole = ["-Wl,--whole-archive", archive.to_str().unwrap(), "-Wl,--no-whole-archive"];
        assert_eq!(linked_with("whole", &whole), "plug_one, plug_two");
    }

    #[test]
    fn an_archive_whose_registrations_are_passed_needs_no_option() {
        let archive = built("libgptq_linkage_explicit.a");
        assert_eq!(linked_with("explicit", &[archive.to_str().unwrap()]), "plug_one, plug_two");
    }

    #[test]
    fn a_shared_library_has_every_backend_that_it_names() {
        let library = built("libgptq_linkage_library.so");
        let folder = format!("-Wl,-rpath,{}", library.parent().unwrap().display());
        assert_eq!(linked_with("shared", &[library.to_str().unwrap(), &folder]), "plug_one, plug_two");
    }

    #[test]
    fn a_library_that_is_loaded_at_run_time_fills_a_registry_of_its_own() {
        let said = says(env!("CARGO_BIN_EXE_host"), &[&built("libgptq_linkage_library.so")]);
        assert_eq!(said, format!("the library:\nplug_one, plug_two\nthe host:\n{EMPTY}"));
    }
}
