//! Layers of real models.

use gptq_core::Result;
use gptq_core::device::Context;
use gptq_core::post_init::{FinalizedModel, Layer};

use crate::accuracy::{Accuracy, Activations, WeightRounding};
use crate::oracle::Dense;
use crate::rig::output_of;

/// Runs a layer of `model` on x, and holds the given columns of its output to the oracle of the words that its checkpoint
/// has, before any conversion. For what the suite does not have: layers of the size and with the values of real models.
///
/// Every 7th column or so is affordable; all of a large layer take the oracle minutes.
///
/// # Errors
/// As [`Layer::forward`]; [`Error::Shape`](gptq_core::Error::Shape) where there is no such column;
/// [`Error::NoSuchLayer`](gptq_core::Error::NoSuchLayer) for a layer of another model;
/// [`Error::Backend`](gptq_core::Error::Backend) where out was not written whole, or something beside it was.
pub fn verify(
    model: &FinalizedModel,
    layer: &Layer,
    x: &Activations,
    columns: &[usize],
    context: &mut Context,
) -> Result<Accuracy> {
    // Not the words that the backend got: those are converted by the code under test.
    let dense = Dense::of_layer(model.checkpoint().layer(layer.name())?, columns)?;
    let n = layer.info().out_features;
    let output = output_of(model, layer, x, context)?;
    let chosen: Vec<f64> = output
        .chunks_exact(n)
        .flat_map(|row| columns.iter().filter_map(|&column| row.get(column).copied()))
        .collect();
    let weights = if layer.rounds_weights() { WeightRounding::ToX } else { WeightRounding::Exact };
    Ok(Accuracy::of(&dense, x, weights, &chosen))
}

#[cfg(test)]
mod tests {
    use gptq_core::Error;
    use gptq_core::tensor::DType;

    use super::*;
    use crate::case::Case;
    use crate::fake;
    use crate::target::Target;

    #[test]
    fn a_layer_of_a_model_is_held_to_its_own_words_in_the_columns_that_are_asked_for() {
        let layer = Case { sym: false, bias: true, ..Case::PLAIN }.build("layer").unwrap().layer;
        let target = Target::new(fake::FULL, "fake:13").unwrap();
        let model = target.open(vec![layer], None, None).unwrap();
        let (layer, mut context) = (&model.layers()[0], model.context().unwrap());
        for dtype in DType::ALL {
            let x = Activations::normal([3, 64], dtype, 1);
            let accuracy = verify(&model, layer, &x, &[0, 7, 63], &mut context).unwrap();
            assert!(accuracy.holds() && accuracy.error > 0.0, "{dtype}: {accuracy:?}");
        }
        let x = Activations::normal([1, 64], DType::F32, 1);
        assert!(matches!(verify(&model, layer, &x, &[64], &mut context), Err(Error::Shape { .. })));
    }
}
