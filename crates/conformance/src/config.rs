//! The configuration of models that come from no file.

use std::path::Path;

use gptq_core::Result;
use gptq_core::checkpoint::QuantizeConfig;

/// A configuration that says nothing which is looked at: layers made in memory carry all that matters.
pub(crate) fn quantize_config() -> Result<QuantizeConfig> {
    QuantizeConfig::from_scalars(4, 128, Some(false), Path::new("(memory)"))
}
