//! `gptq generate`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Run, WHOLE, assert_says, checkpoint, copy_of, edit_json, gptq};

const PROMPT: &str = "And the LORD spake unto Moses, saying,";
/// What GPTQModel makes of it in 32 tokens.
const CONTINUATION: &str = "\nSpeak unto the children of Israel, saying, Thus saith the LORD, the God of Israel, \
    the God of Israel, the God of Israel,";

fn generate(dir: &Path, more: &[&str]) -> Run {
    let mut args = vec!["generate", dir.to_str().expect("a path that is text")];
    args.extend(more);
    gptq(&args)
}

fn document(dir: &Path, more: &[&str]) -> Value {
    generate(dir, &[&["--json"], more].concat()).json()
}

#[test]
fn the_text_goes_to_standard_output_and_what_it_cost_to_standard_error() {
    let run = generate(&checkpoint(WHOLE), &["--prompt", PROMPT, "--max-new-tokens", "32"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), format!("{CONTINUATION}\n").as_str()),
        "{}",
        run.stderr
    );
    assert_says(
        &run.stderr,
        &["32 new tokens", "torch, cpu, f32", "prefill  10 tokens in", "decode   31 tokens in"],
    );
}

#[test]
fn every_activation_dtype_goes_on_in_a_sensible_way() {
    for dtype in ["f16", "bf16"] {
        let more = ["--prompt", PROMPT, "--max-new-tokens", "8", "--dtype", dtype];
        let found = document(&checkpoint(WHOLE), &more);
        assert_eq!(
            (&found["dtype"], found["text"].as_str()),
            (&json!(dtype), CONTINUATION.get(..27)),
            "{dtype}"
        );
    }
}

#[test]
fn the_json_says_what_ran_and_why_it_stopped() {
    let found = document(&checkpoint(WHOLE), &["--prompt", PROMPT, "--max-new-tokens", "3"]);
    assert_eq!(found["stopped"], "max_new_tokens");
    assert_eq!(
        (&found["backends"], &found["device"], &found["dtype"]),
        (&json!(["torch"]), &json!("cpu"), &json!("f32"))
    );
    assert_eq!((&found["prefill"]["tokens"], &found["decode"]["tokens"]), (&json!(10), &json!(2)));
    assert_eq!(found["tokens"].as_array().map(Vec::len), Some(3));
    // Two tensors for each of 4 layers: 13 tokens, 2 heads of 64 elements.
    assert_eq!(found["memory"]["cache_bytes"], 2 * 4 * 13 * 2 * 64 * 4);
}

#[test]
fn a_text_ends_where_the_model_ends_it_and_goes_on_where_that_is_ignored() {
    let first =
        document(&checkpoint(WHOLE), &["--prompt", PROMPT, "--max-new-tokens", "1"])["tokens"][0].clone();
    let copy = copy_of(WHOLE);
    // In the file that only text generation reads.
    edit_json(copy.path(), "generation_config.json", |config| config["eos_token_id"] = json!([first]));
    let more = ["--prompt", PROMPT, "--max-new-tokens", "5"];
    let found = document(copy.path(), &more);
    assert_eq!(
        (&found["stopped"], &found["text"], &found["tokens"]),
        (&json!("end_of_text"), &json!(""), &json!([]))
    );
    let found = document(copy.path(), &[&more[..], &["--ignore-eos"]].concat());
    assert_eq!(
        (&found["stopped"], found["tokens"].as_array().map(Vec::len)),
        (&json!("max_new_tokens"), Some(5))
    );
}

#[test]
fn a_text_ends_where_the_context_is_full_and_a_prompt_that_fills_it_is_an_error() {
    let copy = copy_of(WHOLE);
    edit_json(copy.path(), "config.json", |config| config["max_position_embeddings"] = json!(12));
    let found = document(copy.path(), &["--prompt", PROMPT]);
    assert_eq!((&found["stopped"], &found["decode"]["tokens"]), (&json!("context"), &json!(2)));
    assert_eq!(found["tokens"].as_array().map(Vec::len), Some(3), "the last token needs no room");

    edit_json(copy.path(), "config.json", |config| config["max_position_embeddings"] = json!(9));
    let error = generate(copy.path(), &["--prompt", PROMPT]).failure();
    assert_says(&error, &["do not fit the model's context of 9", "a shorter prompt"]);
}

#[test]
fn a_seed_decides_what_is_drawn() {
    let draw = |seed: &str| {
        let more = [
            "--prompt",
            PROMPT,
            "--temperature",
            "1.5",
            "--top-p",
            "0.95",
            "--seed",
            seed,
            "--max-new-tokens",
            "20",
        ];
        document(&checkpoint(WHOLE), &more)["tokens"].clone()
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}
    {% if message['role'] == 'system' %}
[{{ message['content'].strip() | upper }}]
    {% else %}
{{ message.role }}: {{ message.content }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}assistant:{% endif %}";

#[test]
fn a_chat_is_written_as_its_template_says_and_special_tokens_come_once() {
    let copy = copy_of(WHOLE);
    fs::write(copy.path().join("chat_template.jinja"), TEMPLATE).expect("written");
    let more = ["--chat", "--system", " be brief ", "--prompt", "who?", "--max-new-tokens", "1"];
    let found = document(copy.path(), &more);
    assert_eq!(found["prompt"], "<s>[BE BRIEF]\nuser: who?\nassistant:");
    let plain =
        document(copy.path(), &["--prompt", "[BE BRIEF]\nuser: who?\nassistant:", "--max-new-tokens", "1"]);
    assert_eq!(
        found["prefill"]["tokens"], plain["prefill"]["tokens"],
        "as many tokens as the same text with one <s>"
    );
}

#[test]
fn a_template_is_found_by_name_and_a_wrong_name_is_answered_with_those_there_are() {
    let copy = copy_of(WHOLE);
    edit_json(copy.path(), "tokenizer_config.json", |config| {
        config["bos_token"] = json!({"content": "<s>"});
        config["chat_template"] = json!([
            {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"},
            {"name": "rag", "template": "{{ messages[-1]['content'] }} by rag"},
        ]);
    });
    let prompt = |more: &[&str]| {
        let more = [&["--chat", "--prompt", "hear", "--max-new-tokens", "1"], more].concat();
        document(copy.path(), &more)["prompt"].clone()
    };
    assert_eq!((prompt(&[]), prompt(&["--template", "rag"])), (json!("<s>hear"), json!("hear by rag")));
    let error = generate(copy.path(), &["--chat", "--prompt", "x", "--template", "tool_use"]).failure();
    assert_says(&error, &["tokenizer_config.json", "`tool_use`", "default, rag"]);
}

#[test]
fn a_template_that_is_missing_wrong_or_refuses_is_named_with_the_reason() {
    let chat = ["--chat", "--prompt", "x"];
    assert_says(&generate(&checkpoint(WHOLE), &chat).failure(), &["no chat template", "leave --chat out"]);
    let copy = copy_of(WHOLE);
    for (template, reason) in [
        ("{% for message in messages %}", "end"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages | no_such_filter }}", "no_such_filter"),
    ] {
        fs::write(copy.path().join("chat_template.jinja"), template).expect("written");
        assert_says(&generate(copy.path(), &chat).failure(), &["chat_template.jinja", "caused by", reason]);
    }
}

#[test]
fn a_tokenizer_that_is_missing_or_broken_is_an_error_before_anything_runs() {
    let prompt = ["--prompt", "x"];
    let error = generate(&checkpoint("kjv-4bit-dynamic-lmhead"), &prompt).failure();
    assert_says(&error, &["kjv-4bit-dynamic-lmhead", "no tokenizer.json"]);
    let copy = copy_of(WHOLE);
    fs::write(copy.path().join("tokenizer.json"), "{}").expect("written");
    assert_says(&generate(copy.path(), &prompt).failure(), &["tokenizer.json: not a tokenizer"]);
}

#[cfg(unix)]
#[test]
fn a_device_in_the_place_of_a_file_is_refused_before_it_is_read() {
    for name in ["generation_config.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.json"] {
        let copy = copy_of(WHOLE);
        let file = copy.path().join(name);
        _ = fs::remove_file(&file);
        std::os::unix::fs::symlink("/dev/null", &file).expect("a link");
        let error = generate(copy.path(), &["--chat", "--prompt", "x"]).failure();
        assert_says(&error, &[name, "a device, expected a regular file"]);
    }
}

#[test]
fn numbers_that_only_python_writes_are_read_over() {
    let copy = copy_of(WHOLE);
    for name in ["config.json", "generation_config.json", "tokenizer_config.json"] {
        let text = fs::read_to_string(copy.path().join(name)).expect("a file");
        let text = text.replacen('{', r#"{"limits": [0.0, Infinity, -Infinity, NaN], "#, 1);
        fs::write(copy.path().join(name), text).expect("written");
    }
    fs::write(copy.path().join("chat_template.jinja"), "{{ messages[0].content }}").expect("written");
    document(copy.path(), &["--chat", "--prompt", "x", "--max-new-tokens", "1"]);
}

#[test]
fn a_model_that_is_not_built_is_refused_by_name() {
    let copy = copy_of(WHOLE);
    let refused = |edit: &dyn Fn(&mut Value), parts: &[&str]| {
        fs::copy(checkpoint(WHOLE).join("config.json"), copy.path().join("config.json")).expect("a copy");
        edit_json(copy.path(), "config.json", edit);
        assert_says(&generate(copy.path(), &["--prompt", "x"]).failure(), parts);
    };
    refused(
        &|config| config["architectures"] = json!(["FalconForCausalLM"]),
        &["config.json", "`FalconForCausalLM`", "LlamaForCausalLM", "Qwen3ForCausalLM"],
    );
    refused(
        &|config| config["rope_parameters"]["rope_type"] = json!("longrope"),
        &["rope_type `longrope`", "yarn"],
    );
    refused(&|config| config["hidden_act"] = json!("gelu"), &["activation `gelu`"]);
    refused(
        &|config| config["hidden_size"] = json!(512),
        &["model.embed_tokens.weight", "[2048, 256]", "[2048, 512]"],
    );
    refused(&|config| config["num_hidden_layers"] = json!(5), &["model.layers.4.input_layernorm.weight"]);

    fs::remove_file(copy.path().join("config.json")).expect("removed");
    assert_says(&generate(copy.path(), &["--prompt", "x"]).failure(), &["no config.json"]);
}

#[test]
fn a_device_that_this_program_has_no_model_for_is_refused() {
    let error = generate(&checkpoint(WHOLE), &["--prompt", "x", "--device", "cuda:1"]).failure();
    assert_says(&error, &["cuda:1", "--device cpu", "gptq-candle"]);
}

#[test]
fn options_of_a_chat_need_a_chat() {
    for option in ["--system", "--template"] {
        assert_says(&generate(&checkpoint(WHOLE), &["--prompt", "x", option, "y"]).usage(), &["--chat"]);
    }
    assert_says(
        &generate(&checkpoint(WHOLE), &["--prompt", "x", "--temperature", "warm"]).usage(),
        &["from 0 on"],
    );
}
