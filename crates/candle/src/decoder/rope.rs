//! Rotary position embeddings (Su et al., RoFormer, 2021), and how their frequencies are scaled for longer texts.

use candle_core::{DType, Device, Tensor};

use super::config::Keys;
use crate::error::Result;

/// How positions turn queries and keys: element `i` and element `i + head_dim / 2` of a head are turned together, by
/// `position · frequencies[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians for each position.
    frequencies: Vec<f64>,
    /// What sines and cosines are multiplied with: YaRN's correction of the softmax temperature.
    factor: f64,
    /// The most positions for which the frequencies hold.
    max_positions: usize,
}

impl Rope {
    /// As `config.json` describes it: `rope_parameters`, or in older files `rope_theta` and `rope_scaling`.
    pub(super) fn from_keys(keys: &Keys<'_>, head_dim: usize, max_positions: usize) -> Result<Self> {
        let parameters = match keys.object("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => keys.object("rope_scaling")?,
        };
        let parameters = parameters.as_ref();
        let theta = match parameters.map_or(Ok(None), |keys| keys.number("rope_theta"))? {
            Some(theta) => theta,
            None => keys.number_or("rope_theta", 10_000.0)?,
        };
        let partial = match parameters.map_or(Ok(None), |keys| keys.number("partial_rotary_factor"))? {
            Some(partial) => partial,
            None => keys.number_or("partial_rotary_factor", 1.0)?,
        };
        if partial != 1.0 {
            return Err(
                keys.unsupported(format!("partial_rotary_factor {partial}"), "only whole heads are turned")
            );
        }
        let base = Base { theta, head_dim };
        let mut rope = Self { frequencies: base.frequencies(), factor: 1.0, max_positions };
        let Some(parameters) = parameters else { return Ok(rope) };
        let kind = match parameters.text("rope_type")? {
            Some(kind) => kind,
            None => parameters.text("type")?.unwrap_or("default"),
        };
        match kind {
            "default" => {}
            "linear" => {
                let factor = positive(parameters, "factor")?;
                rope.scale(|_| 1.0 / factor);
            }
            // Frequencies change only for texts longer than the model was trained on, and then for the whole text,
            // which no cache of turned keys can follow. Up to that length nothing is scaled.
            "dynamic" => {
                let original = parameters.positive_or("original_max_position_embeddings", max_positions)?;
                rope.max_positions = max_positions.min(original);
            }
            "llama3" => rope.scale(llama3(parameters)?),
            "yarn" => {
                let yarn = Yarn::from_keys(parameters, base, max_positions)?;
                rope.factor = yarn.attention_factor;
                for (index, frequency) in rope.frequencies.iter_mut().enumerate() {
                    *frequency *= yarn.factor_of(index);
                }
                // Files that name the original context may leave max_position_embeddings as it was.
                rope.max_positions = max_positions.max(yarn.positions);
            }
            other => {
                let reason = "rotary embeddings are scaled as default, linear, dynamic, llama3 or yarn";
                return Err(parameters.unsupported(format!("rope_type `{other}`"), reason));
            }
        }
        Ok(rope)
    }

    /// The most positions for which it holds.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// Cosines and sines `[count, head_dim / 2]` of the positions from `first` on.
    ///
    /// # Errors
    /// candle's.
    pub fn tables(
        &self,
        first: usize,
        count: usize,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let shape = (count, self.frequencies.len());
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in first..first + count {
            for frequency in &self.frequencies {
                // Rounded as where the models were trained: it shows at high positions.
                let angle = f64::from(position as f32 * rounded(*frequency));
                cos.push(rounded(angle.cos() * self.factor));
                sin.push(rounded(angle.sin() * self.factor));
            }
        }
        let tensor = |values| Tensor::from_vec(values, shape, device)?.to_dtype(dtype);
        Ok((tensor(cos)?, tensor(sin)?))
    }

    /// Multiplies each frequency with what `factor` makes of it.
    fn scale(&mut self, factor: impl Fn(f64) -> f64) {
        for frequency in &mut self.frequencies {
            *frequency *= factor(*frequency);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is what is wanted")]
fn rounded(value: f64) -> f32 {
    value as f32
}

#[derive(Clone, Copy)]
struct Base {
    theta: f64,
    head_dim: usize,
}

impl Base {
    /// `theta^(-2i / head_dim)`.
    fn frequencies(self) -> Vec<f64> {
        let exponent = |index: usize| (2 * index) as f64 / self.head_dim as f64;
        (0..self.head_dim / 2).map(|index| self.theta.powf(-exponent(index))).collect()
    }
}

fn positive(keys: &Keys<'_>, key: &str) -> Result<f64> {
    match keys.number(key)? {
        Some(number) if number > 0.0 => Ok(number),
        _ => Err(keys.wrong(key, "a positive number".into())),
    }
}

/// Llama 3.1: frequencies that turn less than `low_freq_factor` times in the original context are divided by
/// `factor`, those that turn more than `high_freq_factor` times stay, those between are interpolated.
fn llama3(keys: &Keys<'_>) -> Result<impl Fn(f64) -> f64 + use<>> {
    let factor = positive(keys, "factor")?;
    let low = positive(keys, "low_freq_factor")?;
    let high = positive(keys, "high_freq_factor")?;
    let original = positive(keys, "original_max_position_embeddings")?;
    if high <= low {
        return Err(keys.wrong("high_freq_factor", format!("more than low_freq_factor = {low}")));
    }
    Ok(move |frequency: f64| {
        let turns = original * frequency / std::f64::consts::TAU;
        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        kept + (1.0 - kept) / factor
    })
}

/// YaRN (Peng et al., 2023): as llama3, but interpolated over the index of the frequency.
struct Yarn {
    factor: f64,
    /// The index up to which frequencies stay, and the one from which on they are divided.
    ramp: [f64; 2],
    attention_factor: f64,
    /// The most positions that it is made for, where the file tells.
    positions: usize,
}

impl Yarn {
    fn from_keys(keys: &Keys<'_>, base: Base, max_positions: usize) -> Result<Self> {
        let factor = positive(keys, "factor")?;
        let named = keys.value("original_max_position_embeddings").is_some();
        let original = keys.positive_or("original_max_position_embeddings", max_positions)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and is positive"
        )]
        let positions = if named { (original as f64 * factor) as usize } else { max_positions };
        let original = original as f64;
        // The index whose frequency turns this many times in the original context.
        let index_of = |turns: f64| {
            let head_dim = base.head_dim as f64;
            head_dim * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * base.theta.ln())
        };
        let mut ramp = [keys.number_or("beta_fast", 32.0)?, keys.number_or("beta_slow", 1.0)?].map(index_of);
        if keys.flag_or("truncate", true)? {
            ramp = [ramp[0].floor(), ramp[1].ceil()];
        }
        let last = base.head_dim as f64 - 1.0;
        let ramp = ramp.map(|index| index.clamp(0.0, last));
        let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let attention_factor = match (
            keys.number("attention_factor")?,
            keys.number("mscale")?,
            keys.number("mscale_all_dim")?,
        ) {
            (Some(given), _, _) => given,
            (None, Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => scale(mscale) / scale(all),
            _ => scale(1.0),
        };
        Ok(Self { factor, ramp, attention_factor, positions })
    }

    fn factor_of(&self, index: usize) -> f64 {
        let [from, to] = self.ramp;
        // Two ends that meet are moved apart a little, so that the ramp is a step.
        let width = if from == to { 0.001 } else { to - from };
        let divided = ((index as f64 - from) / width).clamp(0.0, 1.0);
        (1.0 - divided) + divided / self.factor
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::decoder::ModelConfig;
    use crate::error::Error;

    fn rope(more: &Value) -> Result<Rope> {
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 512, "intermediate_size": 8, "vocab_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 4096,
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        Ok(ModelConfig::from_json(&config, Path::new("config.json"))?.rope)
    }

    #[track_caller]
    fn assert_frequencies(rope: &Rope, expected: &[(usize, f64)]) {
        for (index, expected) in expected {
            let found = rope.frequencies[*index];
            assert!(
                (found / expected - 1.0).abs() < 1e-12,
                "frequency {index} is {found}, expected {expected}"
            );
        }
    }

    #[test]
    fn both_spellings_of_the_configuration_mean_the_same() {
        let old =
            rope(&json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}})).unwrap();
        let new = json!({"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0});
        assert_eq!(old, rope(&json!({"rope_parameters": new})).unwrap());
        assert_frequencies(&old, &[(0, 0.25), (32, 0.25 / 5e5f64.sqrt())]);
        let plain = rope(&json!({"rope_scaling": null})).unwrap();
        assert_frequencies(&plain, &[(0, 1.0), (16, 0.1), (48, 0.001)]);
    }

    #[test]
    fn llama3_keeps_what_turns_often_and_stretches_what_turns_seldom() {
        let scaling = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
        let rope = rope(&json!({"rope_theta": 5e5, "rope_scaling": scaling})).unwrap();
        assert_frequencies(
            &rope,
            &[
                (0, 1.0),
                (28, 0.0032114459947525913),
                (29, 0.002166570763503359),
                (32, 0.0005248461609929547),
                (35, 9.556212353964683e-05),
                (63, 3.068925988914511e-07),
            ],
        );
    }

    #[test]
    fn yarn_interpolates_by_index_and_corrects_the_temperature() {
        let scaling = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768});
        let rope = rope(&json!({"rope_theta": 1e6, "rope_scaling": scaling})).unwrap();
        assert_frequencies(
            &rope,
            &[
                (23, 0.006978305848598663),
                (24, 0.005375321490790102),
                (30, 0.0010643609812470017),
                (39, 6.490394320837028e-05),
                (63, 3.102344401879299e-07),
            ],
        );
        assert!((rope.factor - 1.138629436111989).abs() < 1e-12, "{}", rope.factor);
        assert_eq!(
            rope.max_positions(),
            4 * 32768,
            "the context it is made for, whatever max_position_embeddings says"
        );
    }

    #[test]
    fn dynamic_scaling_holds_for_the_context_in_which_it_does_nothing() {
        let scaling = json!({"type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 1024});
        let scaled = rope(&json!({"rope_scaling": scaling})).unwrap();
        assert_eq!(scaled.max_positions(), 1024);
        assert_eq!(scaled.frequencies, rope(&json!({})).unwrap().frequencies);
    }

    #[test]
    fn tables_hold_cosines_and_sines_of_position_times_frequency() {
        let (cos, sin) = rope(&json!({})).unwrap().tables(3, 2, DType::F32, &Device::Cpu).unwrap();
        assert_eq!((cos.dims(), sin.dims()), (&[2, 64][..], &[2, 64][..]));
        let (cos, sin) = (cos.to_vec2::<f32>().unwrap(), sin.to_vec2::<f32>().unwrap());
        assert_eq!((cos[0][0], sin[1][0]), (3f32.cos(), 4f32.sin()));
        assert!((sin[1][16] - 0.4f32.sin()).abs() < 1e-7, "the frequency of 16 is 0.1");
    }

    #[test]
    fn what_is_not_built_or_makes_no_sense_is_an_error_that_names_the_key() {
        for (scaling, says) in [
            (json!({"rope_type": "longrope"}), "rope_type `longrope` is not supported"),
            (json!({"type": "linear"}), "`rope_scaling.factor` is missing"),
            (json!({"type": "linear", "factor": -1.0}), "`rope_scaling.factor` is -1.0"),
            (json!({"type": "linear", "factor": "two"}), "`rope_scaling.factor` is \"two\""),
            (
                json!({"type": "llama3", "factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0,
                "original_max_position_embeddings": 8}),
                "`rope_scaling.high_freq_factor` is 1.0",
            ),
            (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor 0.5"),
            (json!("yarn"), "`rope_scaling` is \"yarn\", expected an object"),
        ] {
            let error = rope(&json!({"rope_scaling": scaling})).unwrap_err();
            assert!(
                matches!(error, Error::Core(_)) && error.to_string().contains(says),
                "{scaling}: {error}"
            );
        }
    }
}
