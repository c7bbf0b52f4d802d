//! CTranslate2 models: the variables of a `model.bin`, without their data.
//!
//! The file alternates a variable's header and its data, so no prefix holds all headers. A [`Walk`]
//! asks for windows of the file one after another and skips the data between them. Where a read is
//! expensive, it predicts where repeated layers end and proves each prediction by the variable that
//! it finds there. No state is trusted: every count and length is checked against the file's
//! length, and the variables and aliases must end where the file does.
//!
//! Source of the layout: CTranslate2 4.8 `python/ctranslate2/specs/model_spec.py` (`_serialize`)
//! and `src/models/model.cc` (`Model::load`).

mod cursor;
mod repeated_layers;
mod stored_type;
mod walk;
pub mod whisper;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Inventory, TensorClass};

pub use stored_type::{StoredType, stored_type};
pub use walk::{Reading, Walk, Walked, Window};

#[cfg(any(test, feature = "samples"))]
pub mod sample;
#[cfg(test)]
mod tests;

/// The file of a model's variables.
pub const FILE_NAME: &str = "model.bin";
/// The newest layout of the file that is understood (`current_binary_version`).
pub const NEWEST_BINARY_VERSION: u32 = 6;
/// The specification of Whisper models.
pub const WHISPER_SPEC: &str = "WhisperSpec";
/// The newest revision of that specification that is understood (`current_spec_revision`).
pub const NEWEST_WHISPER_REVISION: u32 = 3;
/// Bytes from the start of a file that [`is_model_bin`] needs.
pub const PREFIX_BYTES: u64 = 128;

/// A `model.bin` apart from its tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelBin {
    /// The layout of the file.
    pub binary_version: u32,
    /// The name of the model's specification: `WhisperSpec`.
    pub spec: String,
    /// The revision of the specification.
    pub revision: u32,
    /// Whole numbers that are no tensors, by the variable's name: `decoder/num_heads`.
    pub attributes: BTreeMap<String, i64>,
    /// Second names of variables: `decoder/projection/weight` is often `decoder/embeddings/weight`.
    pub aliases: BTreeMap<String, String>,
}

/// The reason why a file cannot be read as a `model.bin`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelBinError {
    /// The file has another layout.
    #[error(
        "CTranslate2's binary version {0} is not read, only 2 to {NEWEST_BINARY_VERSION}; convert \
         the model again"
    )]
    BinaryVersion(u32),
    /// A count or length that no model has.
    #[error("it claims {claimed} {what}, more than {limit}: the header is damaged or hostile")]
    Absurd {
        /// The counted things.
        what: &'static str,
        /// The claimed count.
        claimed: u64,
        /// The bound on it.
        limit: u64,
    },
    /// The file ends inside a header or a variable's data.
    #[error("the file has {has} bytes but {what} needs {needs}: the download is incomplete")]
    Truncated {
        /// The truncated part.
        what: String,
        /// Bytes that the part needs, from the start of the file.
        needs: u64,
        /// Bytes in the file.
        has: u64,
    },
    /// A name that no converter writes.
    #[error("the name at byte {0} is not a name: the header is damaged or hostile")]
    Name(u64),
    /// A variable that contradicts itself.
    #[error("variable '{name}': {why}")]
    Variable {
        /// The variable's name.
        name: String,
        /// The contradiction.
        why: &'static str,
    },
}

/// Whether a file that begins with `prefix` is a `model.bin` of CTranslate2.
///
/// Other formats use the same file name. CTranslate2's files have no magic number, but their
/// version is followed by the name of a specification.
pub fn is_model_bin(prefix: &[u8]) -> bool {
    let mut cursor = cursor::VariableCursor::new(prefix, 0);
    let Ok(version) = cursor.u32() else {
        return false;
    };
    let Ok(spec) = cursor.name() else {
        return false;
    };

    (2..=u32::from(u8::MAX)).contains(&version) && spec.ends_with("Spec")
}

/// Checks a count that a header claims.
const fn bounded(claimed: u64, what: &'static str, limit: u64) -> Result<(), ModelBinError> {
    if claimed <= limit {
        return Ok(());
    }

    Err(ModelBinError::Absurd {
        what,
        claimed,
        limit,
    })
}

/// Returns the elements of all tensors but the scales of quantized ones.
pub fn parameters(inventory: &Inventory) -> u64 {
    let is_counted =
        |class: &&TensorClass| !class.shape.is_empty() && !class.pattern.ends_with("_scale");
    let elements = inventory
        .classes
        .iter()
        .filter(is_counted)
        .map(|class| class.elements_each().saturating_mul(class.count));

    elements.fold(0, u64::saturating_add)
}

/// The name of a variable in the form that folds layers: dots between parts, and layer numbers as
/// parts of their own.
///
/// `decoder/layer_3/ffn/linear_0/weight` becomes `decoder.layer.3.ffn.linear_0.weight`.
fn tensor_name(variable: &str) -> String {
    let parts = variable.split('/').map(|part| {
        let number = part.strip_prefix("layer_").filter(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        number.map_or_else(|| part.to_owned(), |number| format!("layer.{number}"))
    });

    parts.collect::<Vec<_>>().join(".")
}
