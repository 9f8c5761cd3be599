//! What can be said of a directory that does not open as a checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::config::{Configs, QuantizeConfig};
use super::layers::natural_order;
use super::{Reading, marlin, weights};
use crate::error::Result;

/// The tensors that a quantized module needs.
const NEEDED: [&str; 3] = ["qweight", "qzeros", "scales"];
/// Those that no other kind of module has.
const TELLING: [&str; 3] = ["qweight", "qzeros", "g_idx"];

/// What a directory holds, seen without making layers of it: for a person who has to find out why
/// [`Checkpoint::open`](super::Checkpoint::open) refuses it. Checks far less than opening does.
#[derive(Debug)]
#[non_exhaustive]
pub struct Survey {
    /// Its configurations, or why they cannot be read.
    pub configs: Result<Configs>,
    /// Its tensors, or why they cannot be read.
    pub weights: Result<WeightSurvey>,
}

/// The tensors of a directory, by name alone.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct WeightSurvey {
    /// The weight files.
    #[serde(serialize_with = "lossy")]
    pub files: Vec<PathBuf>,
    /// Quantized modules that have all the tensors they need.
    pub complete: usize,
    /// Quantized modules that lack some.
    pub incomplete: Vec<IncompleteModule>,
    /// Tensors of neither.
    pub plain_tensors: usize,
}

/// A quantized module that lacks tensors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct IncompleteModule {
    /// The module.
    pub name: Arc<str>,
    /// The tensors it has.
    pub found: Vec<&'static str>,
    /// The tensors it lacks.
    pub missing: Vec<&'static str>,
}

impl Survey {
    /// Looks at `dir`.
    pub fn of(dir: &Path, reading: Reading) -> Self {
        let configs = QuantizeConfig::find(dir);
        let primary = configs.as_ref().ok().map(|configs| &configs.primary);
        let weights = weights::open(dir, primary, reading).map(|(files, tensors)| {
            let names: Vec<&str> = tensors.keys().map(|name| &**name).collect();
            // As in opening: beside modules of GPTQ's format there are none of Marlin's.
            let marlin = match names.iter().any(|name| name.ends_with(".qweight")) {
                true => Vec::new(),
                // Codes that have their scales beside them.
                false => marlin::modules(false, &tensors),
            };
            WeightSurvey::of(files, &names, &marlin.iter().map(|module| &**module).collect())
        });
        Self { configs, weights }
    }
}

impl WeightSurvey {
    /// `marlin` are the modules in Marlin's format.
    fn of(files: Vec<PathBuf>, names: &[&str], marlin: &BTreeSet<&str>) -> Self {
        let mut modules: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
        let piece = |name: &'_ str, suffixes: &[&'static str]| {
            let (module, last) = name.rsplit_once('.')?;
            Some((module.len(), *suffixes.iter().find(|suffix| **suffix == last)?))
        };
        for name in names {
            if let Some((module, _)) = piece(name, &TELLING) {
                let module = name.get(..module).unwrap_or_default();
                if !marlin.contains(module) {
                    modules.entry(module).or_default();
                }
            }
        }
        let of_marlin = |name: &str| {
            let piece = piece(name, &marlin::SUFFIXES).and_then(|(module, _)| name.get(..module));
            piece.is_some_and(|module| marlin.contains(module))
        };
        let mut plain_tensors = 0;
        for name in names {
            let of = piece(name, &["qweight", "qzeros", "scales", "g_idx", "bias"])
                .and_then(|(module, suffix)| Some((modules.get_mut(name.get(..module)?)?, suffix)));
            match of {
                Some((found, suffix)) => found.push(suffix),
                None if of_marlin(name) => {}
                None => plain_tensors += 1,
            }
        }
        let mut incomplete: Vec<IncompleteModule> = modules
            .iter()
            .filter_map(|(name, found)| {
                let missing: Vec<_> = NEEDED.into_iter().filter(|needed| !found.contains(needed)).collect();
                let module = IncompleteModule { name: Arc::from(*name), found: found.clone(), missing };
                (!module.missing.is_empty()).then_some(module)
            })
            .collect();
        incomplete.sort_by(|a, b| natural_order(&a.name, &b.name));
        let complete = modules.len() - incomplete.len() + marlin.len();
        Self { files, complete, incomplete, plain_tensors }
    }
}

/// A path may hold bytes that are not text; a report about it must not fail for that.
fn lossy<S: serde::Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn modules_without_all_their_tensors_are_listed_and_other_tensors_are_counted() {
        let mut names = vec!["model.embed.weight", "norm.scales", "norm.bias", "lone"];
        names.extend(["a.10.qweight", "a.10.scales", "a.10.bias"]);
        names.extend(["a.2.qzeros", "a.2.g_idx"]);
        names.extend(["b.qweight", "b.qzeros", "b.scales"]);
        let survey = WeightSurvey::of(vec![], &names, &BTreeSet::new());
        assert_eq!((survey.complete, survey.plain_tensors), (1, 4));
        let module = |name: &str, found: &[&'static str], missing: &[&'static str]| IncompleteModule {
            name: name.into(),
            found: found.to_vec(),
            missing: missing.to_vec(),
        };
        let expected = [
            module("a.2", &["qzeros", "g_idx"], &["qweight", "scales"]),
            module("a.10", &["qweight", "scales", "bias"], &["qzeros"]),
        ];
        assert_eq!(survey.incomplete, expected);
    }

    fn survey_of(names: &[&str]) -> WeightSurvey {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let views = names.iter().map(|name| {
            (*name, TensorView::new(Dtype::F16, vec![0], &[]).expect("a tensor without elements"))
        });
        safetensors::serialize_to_file(views, None, &dir.path().join("model.safetensors")).expect("written");
        Survey::of(dir.path(), Reading::Map).weights.expect("a good weight file")
    }

    #[test]
    fn modules_of_marlins_format_are_counted_with_their_bias() {
        let survey = survey_of(&["a.B", "a.s", "a.bias", "b.B", "b.s", "norm.weight", "x.s"]);
        assert_eq!((survey.complete, survey.plain_tensors), (2, 2), "{survey:?}");
        // A piece of GPTQ's format alone makes no module of it.
        let survey = survey_of(&["a.B", "a.s", "a.bias", "a.qzeros"]);
        assert_eq!((survey.complete, survey.plain_tensors), (1, 1), "{survey:?}");
        assert_eq!(survey.incomplete, []);
    }

    #[test]
    fn names_of_marlins_format_beside_a_qweight_are_plain_tensors() {
        let survey = survey_of(&["a.qweight", "a.B", "a.s", "a.bias"]);
        assert_eq!((survey.complete, survey.plain_tensors), (0, 2), "{survey:?}");
        let missing: Vec<_> = survey.incomplete.iter().map(|module| &module.missing[..]).collect();
        assert_eq!(missing, [["qzeros", "scales"]]);
    }
}
