//! `gptq backends`.

use serde_json::json;

use crate::support::{assert_says, gptq};

#[test]
fn what_is_linked_is_listed_with_what_it_can_run_and_what_is_missing() {
    let text = gptq(&["backends"]).success();
    assert_says(
        &text,
        &["torch\n", "priority   20", "on cpu     usable", "2, 3, 4, 5, 6, 7, 8", "on cuda:0  "],
    );
}

#[test]
fn a_machine_without_a_gpu_is_told_what_is_missing_and_everything_else_works() {
    // Whatever GPUs a machine has, it has none of this number.
    let text = gptq(&["backends", "--device", "cuda:99"]).success();
    assert_says(&text, &["on cuda:99  not usable: "]);
    let json = gptq(&["backends", "--device", "cuda:99", "--json"]).json();
    let answer = &json["backends"][0]["devices"][0];
    let reason = answer["reason"].as_str().expect("in words");
    match answer["rejection"]["kind"].as_str() {
        Some("driver") => assert_says(reason, &["NVIDIA driver", "--device cpu"]),
        Some("no_such_device") => assert_says(reason, &["there is no cuda:99"]),
        other => panic!("another reason, {other:?}: {reason}"),
    }
}

#[test]
fn the_json_has_capabilities_as_data() {
    let json = gptq(&["backends", "--json"]).json();
    let backends = json["backends"].as_array().expect("backends");
    let torch = backends.iter().find(|backend| backend["name"] == "torch").expect("the fallback is linked");
    assert_eq!(torch["priority"], json!(20));
    let priorities: Vec<_> = backends.iter().map(|backend| backend["priority"].as_i64()).collect();
    assert!(priorities.is_sorted_by(|one, next| one >= next), "the order in which auto asks: {priorities:?}");
    assert_eq!(
        backends.last().map(|last| &last["name"]),
        Some(&json!("torch")),
        "the fallback is asked last"
    );
    let [cpu, cuda] = [&torch["devices"][0], &torch["devices"][1]];
    assert_eq!((&cpu["device"], &cpu["usable"]), (&json!("cpu"), &json!(true)));
    assert_eq!(cpu["capabilities"]["bits"], json!([2, 3, 4, 5, 6, 7, 8]));
    assert_eq!(cpu["capabilities"]["zeros"], "v2");
    assert_eq!(&cuda["device"], &json!("cuda:0"));
    match cuda["usable"].as_bool() {
        Some(true) => assert_eq!(cuda["capabilities"]["bits"], cpu["capabilities"]["bits"]),
        _ => assert!(cuda["rejection"]["kind"].is_string() && cuda["reason"].is_string(), "{cuda}"),
    }
}

#[test]
fn only_the_devices_that_were_asked_for_are_shown() {
    let json = gptq(&["backends", "--device", "cuda:3", "--device", "cpu", "--json"]).json();
    let devices = json["backends"][0]["devices"].as_array().expect("devices");
    let names: Vec<_> = devices.iter().map(|answer| answer["device"].clone()).collect();
    assert_eq!(names, ["cuda:3", "cpu"]);
    assert_says(&gptq(&["backends", "--device", "cuda:"]).usage(), &["ordinal"]);
}
