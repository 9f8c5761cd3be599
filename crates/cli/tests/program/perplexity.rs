//! `gptq perplexity`.

use std::fs;
use std::path::Path;

use crate::support::{Run, WHOLE, assert_says, checkpoint, gptq, scratch};

const TEXT: &str = "In the beginning God created the heaven and the earth. And the earth was without form, and void; \
    and darkness was upon the face of the deep. And the Spirit of God moved upon the face of the waters.";

fn perplexity(text: &Path, more: &[&str]) -> Run {
    let dir = checkpoint(WHOLE);
    let [dir, text] = [&dir, text].map(|path| path.to_str().expect("a path that is text"));
    let mut args = vec!["perplexity", dir, "--text", text];
    args.extend(more);
    gptq(&args)
}

#[test]
fn a_text_like_those_it_learnt_surprises_a_model_less_than_the_same_words_shuffled() {
    let dir = scratch();
    let measure = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        let found = perplexity(&path, &["--json"]).json();
        let [loss, perplexity] = ["loss", "perplexity"].map(|key| found[key].as_f64().expect("a number"));
        assert!((loss.exp() - perplexity).abs() < 1e-9 * perplexity, "{found}");
        assert_eq!((&found["windows"], &found["window"]), (&1.into(), &512.into()), "{found}");
        loss
    };
    let mut words: Vec<&str> = TEXT.split(' ').collect();
    words.sort_unstable_by_key(|word| word.bytes().rev().collect::<Vec<_>>());
    let (text, shuffled) = (measure("text", TEXT), measure("shuffled", &words.join(" ")));
    assert!(text < 3.0 && shuffled > text + 2.0, "losses of {text:.2} and {shuffled:.2}");
}

#[test]
fn windows_cover_the_text_and_each_predicts_all_but_its_first_token() {
    let dir = scratch();
    let path = dir.path().join("text");
    fs::write(&path, TEXT).expect("written");
    let whole = perplexity(&path, &["--json"]).json();
    let tokens = whole["predicted"].as_u64().expect("a number") + 1;
    let found = perplexity(&path, &["--json", "--window", "10"]).json();
    // A window of one token would predict nothing.
    let windows = tokens / 10 + u64::from(tokens % 10 > 1);
    assert_eq!(found["windows"], windows);
    assert_eq!(found["predicted"], tokens / 10 * 9 + (tokens % 10).saturating_sub(1));
    let few = perplexity(&path, &["--json", "--window", "10", "--max-windows", "2"]).json();
    assert_eq!((&few["windows"], &few["predicted"]), (&2.into(), &18.into()));
    assert!(found["loss"].as_f64() > whole["loss"].as_f64(), "who sees less of a text expects less of it");
}

#[test]
fn the_report_names_the_text_and_what_ran() {
    let dir = scratch();
    let path = dir.path().join("genesis.txt");
    fs::write(&path, TEXT).expect("written");
    let text = perplexity(&path, &[]).success();
    assert_says(&text, &["perplexity ", "nats a token", "genesis.txt", "torch, cpu, f32", "tokens/s"]);
}

#[test]
fn a_text_that_is_missing_or_too_short_is_an_error() {
    let dir = scratch();
    let path = dir.path().join("text");
    assert_says(&perplexity(&path, &[]).failure(), &["text: cannot read"]);
    fs::write(&path, "").expect("written");
    assert_says(&perplexity(&path, &[]).failure(), &["1 token", "at least 2"]);
    fs::write(&path, b"\xff\xfe").expect("written");
    assert_says(&perplexity(&path, &[]).failure(), &["cannot read", "UTF-8"]);
}
