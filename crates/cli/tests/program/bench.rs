//! `gptq bench`, over layers and memory so small that it says nothing of the machine.

use serde_json::json;

use crate::support::{assert_says, gptq, scratch};

const SMALL: [&str; 9] = ["bench", "--read", "1", "--copies", "1", "--turn", "1", "--rounds", "2"];

fn bench(more: &[&str]) -> crate::support::Run {
    gptq(&[&SMALL[..], more].concat())
}

#[test]
fn every_combination_is_a_case_beside_the_limits_of_the_machine() {
    let json = bench(&["--shape", "64x96,96x64", "--rows", "1,3", "--dtype", "bf16,f32", "--json"]).json();
    let cases = json["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 8);
    assert!(json["limits"]["read_bytes_per_second"].as_f64() > Some(0.0));
    for case in cases {
        let number = |key: &str| case[key].as_f64().expect("a number");
        assert!(number("calls") >= 4.0 && number("median_seconds") >= number("best_seconds"), "{case}");
        assert!(number("of_limit") > 0.0, "{case}");
        assert_eq!(number("operations"), 2.0 * 64.0 * 96.0 * number("rows"));
    }
    assert_eq!((&cases[0]["backend"], &cases[0]["bits"]), (&json!("torch"), &json!(4)));
}

#[test]
fn the_table_says_what_was_timed_and_how() {
    let text = bench(&[
        "--shape",
        "128x64",
        "--bits",
        "3,7",
        "--rows",
        "2",
        "--dtype",
        "f16",
        "--act-order",
        "--asymmetric",
        "--group-size",
        "64",
        "--warm",
    ])
    .success();
    assert_says(&text, &["threads", "GB/s", "asym act-order", "f16", "2 cases, ", "weights as warm"]);
}

#[test]
fn figures_and_plot_go_into_files_that_are_not_overwritten_unasked() {
    let dir = scratch();
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let (csv, json, svg) = (path("bench.csv"), path("bench.json"), path("bench.svg"));
    let files = ["--csv", &csv, "--report", &json, "--plot", &svg];
    let arguments = [&["--shape", "64x64", "--rows", "1", "--dtype", "f32"][..], &files].concat();
    assert_says(&bench(&arguments).success(), &["1 case"]);
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).expect("a file")).expect("JSON");
    assert_eq!(report["cases"].as_array().map(Vec::len), Some(1));
    let table = std::fs::read_to_string(&csv).expect("a file");
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(std::fs::read_to_string(&svg).expect("a file").starts_with("<svg"));
    assert_says(&bench(&arguments).failure(), &["bench.csv", "--force"]);
    bench(&[&arguments[..], &["--force"]].concat()).success();
}

#[test]
fn what_cannot_be_timed_is_refused() {
    assert_says(&bench(&["--device", "npu:0"]).failure(), &["npu:0", "--device cpu"]);
    assert_says(&bench(&["--shape", "64"]).usage(), &["KxN"]);
    assert_says(&bench(&["--bits", "9"]).usage(), &["2 to 8"]);
    assert_says(&bench(&["--group-size", "0"]).usage(), &["-1"]);
    assert_says(&bench(&["--shape", "40x40", "--bits", "5"]).failure(), &["multiples of 32"]);
}

#[test]
fn what_no_machine_holds_is_refused_before_it_is_allocated() {
    let rows = ["18446744073709551615", "1000000000000"];
    for rows in rows {
        let text = bench(&["--shape", "64x64", "--rows", rows]).failure();
        assert_says(&text, &["x or y of the benchmark", rows, "64", "--rows"]);
    }
    assert_says(
        &bench(&["--shape", "1048575x1048575", "--rows", "1"]).failure(),
        &["1048575x1048575", "--shape"],
    );
}

#[test]
fn tiny_layers_are_copied_some_thousand_times_and_no_more() {
    // 512 MiB of such layers would be more than fifty million.
    let tiny =
        ["--shape", "1x1", "--rows", "1", "--dtype", "f32", "--read", "1", "--turn", "1", "--rounds", "1"];
    let json = gptq(&[&["bench", "--json"][..], &tiny].concat()).json();
    assert!(json["cases"][0]["calls"].as_f64() >= Some(2.0), "{json}");
}

#[test]
fn without_a_gpu_the_failure_says_what_is_missing() {
    // No machine has as many.
    let text = bench(&["--device", "cuda:99", "--shape", "64x64", "--rows", "1"]).failure();
    assert_says(&text, &["cuda:99 cannot be used for a benchmark: "]);
}

#[test]
fn chains_and_tuning_are_for_gpus() {
    assert_says(&bench(&["--chain"]).failure(), &["cpu: --chain", "--device cuda:0"]);
    assert_says(&bench(&["--chain", "0"]).usage(), &["--chain"]);
    assert_says(&bench(&["--chain", "--csv", "bench.csv"]).usage(), &["--csv"]);
    let none = ["--chain", "2", "--device", "cuda:99"];
    assert_says(&bench(&none).failure(), &["cuda:99 cannot be used for a benchmark: "]);
    assert_says(
        &gptq(&["tune", "--device", "cpu"]).failure(),
        &["cpu: nothing is chosen", "--device cuda:0"],
    );
    assert_says(&gptq(&["tune", "--device", "cuda:99"]).failure(), &["cuda:99 cannot be used"]);
}

#[test]
fn backends_that_take_turns_are_cases_of_their_own() {
    let json =
        bench(&["--backend", "torch,auto", "--shape", "64x64", "--rows", "1", "--dtype", "f32", "--json"])
            .json();
    assert_eq!(json["cases"].as_array().map(Vec::len), Some(2));
    assert!(json["cases"][0]["launches"].is_null() && json["cases"][0]["read_seconds"].is_null());
    let refused = bench(&["--backend", "torch,nobody", "--shape", "64x64", "--rows", "1"]).failure();
    assert_says(&refused, &["nobody"]);
}
