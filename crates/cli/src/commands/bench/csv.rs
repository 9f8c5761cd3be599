//! The figures as comma-separated values.

use std::fmt::Write;

use super::report::{Benchmark, Bound, Launches};

const HEADER: &str = "in_features,out_features,bits,group_size,act_order,symmetric,backend,dtype,rows,warm,calls,\
                      median_seconds,best_seconds,bytes,operations,gb_per_s,gflop_per_s,bound,limit_seconds,of_limit,\
                      launches,read_seconds,of_read,dense_seconds,of_dense";

/// A line for each case, after one that names the columns. No value holds a comma.
pub(super) fn table(benchmark: &Benchmark) -> String {
    let seconds = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:e}"));
    let ratio = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
    let mut text = format!("{HEADER}\n");
    for case in &benchmark.cases {
        let of = &case.measured;
        let backend = of.backend.map_or_else(String::new, |backend| backend.to_string());
        let bound = if case.bound == Bound::Memory { "memory" } else { "multiplication" };
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "{},{},{},{},{},{},{backend},{},{},{},{},{:e},{:e},{},{},{:.3},{:.3},{bound},{:e},{:.4},{},{},{},{},{}",
            of.in_features,
            of.out_features,
            of.bits,
            of.group_size,
            of.act_order,
            of.symmetric,
            of.dtype,
            of.rows,
            benchmark.warm,
            of.calls,
            of.median_seconds,
            of.best_seconds,
            of.bytes,
            of.operations,
            case.bytes_per_second * 1e-9,
            case.operations_per_second * 1e-9,
            case.limit_seconds,
            case.of_limit,
            of.launches.map_or("", Launches::name),
            seconds(of.read_seconds),
            ratio(case.of_read),
            seconds(of.dense_seconds),
            ratio(case.of_dense),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{example, example_on_gpu};
    use super::*;

    #[test]
    fn every_line_has_a_value_for_every_column() {
        for benchmark in [example(), example_on_gpu()] {
            let text = table(&benchmark);
            let widths: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
            assert_eq!(widths, [25, 25, 25], "{text}");
        }
        let text = table(&example_on_gpu());
        assert!(text.contains(",overlapping,1e-4,0.8000,,\n"), "{text}");
        assert!(text.ends_with(",plain,1e-4,0.0125,6e-3,0.7500\n"), "{text}");
        let text = table(&example());
        assert!(text.contains(",bf16,1,false,7,1.25e-4,"), "{text}");
    }
}
