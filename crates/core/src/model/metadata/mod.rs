//! Everything that was read of a model, in one serializable value.
//!
//! The cache keeps this value by commit, a bundle contains it, and a client sends it to the daemon
//! for a model on its own disk. [`assemble()`] makes a [`Model`](crate::model::Model) of it without
//! any other input, so all of these ways end in the same answer. Tensors are folded: a mixture of
//! 90 000 tensors takes about ten kilobytes.

pub mod assemble;
mod record;
#[cfg(any(test, feature = "samples"))]
pub mod sample;
mod variant;
mod warnings;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use assemble::assemble;
pub use record::{RecordError, TensorRecord};
pub use variant::{Variant, VariantEvidence};

use super::weight_files::{Component, WeightFile};
use crate::model::ctranslate2::ModelBin;
use crate::model::gguf::Gguf;
use crate::model::{Format, Identity, Inventory};

/// The version of this structure. Entries with another version are read from their source again.
pub const VERSION: u32 = 3;
/// The maximum serialized size that is accepted from a cache, a bundle or a client.
pub const MAX_SERIALIZED_BYTES: u64 = 16 << 20;
/// The maximum number of GGUF models in one repository. Each of them costs a plan.
pub const MAX_VARIANTS: usize = 128;
/// The component of an adapter's tensors that are loaded with a GGUF model.
pub const ADAPTER: &str = "adapter";
/// The document with Ollama's parameters for a model.
pub const PARAMETERS: &str = "ollama/params.json";
/// The maximum number of tensor classes of one model.
///
/// Real models have at most a few hundred, or a few thousand if layer numbers are inside words.
pub const MAX_CLASSES: usize = 20_000;

/// Everything that was read of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// [`VERSION`] at the time of writing.
    pub version: u32,
    /// The model's repository, revision and commit.
    pub identity: Identity,
    /// How the weights are stored.
    pub format: Format,
    /// The files that hold the weights.
    pub files: Vec<WeightFile>,
    /// GGUF models of the same repository that were not chosen, with their sizes. They are the
    /// other quantizations to suggest.
    pub siblings: Vec<(String, Option<u64>)>,
    /// Multimodal projectors in the repository of a GGUF model.
    pub projectors: Vec<String>,
    /// The tensors, folded.
    pub tensors: Vec<TensorRecord>,
    /// Documents by path: `config.json`, `hf_quant_config.json`, `model_index.json`, and
    /// components' configurations.
    pub documents: BTreeMap<String, Value>,
    /// Documents that could not be parsed, and why.
    pub unreadable: BTreeMap<String, String>,
    /// The named components of a pipeline.
    pub components: Vec<Component>,
    /// The name of the base model, if this is an adapter.
    pub base_model: Option<String>,
    /// The metadata of the base model, if this is an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Box<Metadata>>,
    /// The GGUF header, with its tensors moved to `tensors`.
    pub gguf: Option<Gguf>,
    /// The header of a CTranslate2 model, with its tensors moved to `tensors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctranslate2: Option<ModelBin>,
    /// The other GGUF models of the repository, if the request named none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    /// Whether a part could not be read for a temporary reason. Such metadata is not kept on disk.
    #[serde(skip)]
    pub partial: bool,
    /// Elements by type, as the Hub counts them.
    pub hub_totals: Option<BTreeMap<String, u64>>,
    /// Whether the Hub asks users to accept a license before it serves the files.
    pub gated: bool,
    /// How the tensors are known.
    #[serde(deserialize_with = "crate::strict_json::tagged")]
    pub evidence: Evidence,
    /// Why the headers cannot describe their files, as a message. The weights are then unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contradiction: Option<String>,
    /// Problems found while reading, as messages.
    #[serde(rename = "doubts")]
    pub warnings: Vec<String>,
}

/// How the tensors are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Evidence {
    /// The header of every file was read.
    EveryHeader,
    /// Some headers were read. The others were inferred from the index, file lengths and the Hub's
    /// totals.
    #[serde(rename = "proved")]
    Inferred {
        /// Headers read.
        read: u32,
        /// Files.
        of: u32,
    },
    /// Only file lengths are known, because pickled files have no header.
    Lengths,
}

impl Metadata {
    /// Returns the inventory of the tensors, after checking the records.
    pub fn inventory(&self) -> Result<Inventory, RecordError> {
        record::inventory(&self.tensors)
    }

    /// Estimates the serialized size of the tensors.
    ///
    /// Documents and all else are small if no read was large.
    pub fn work_bytes(&self) -> u64 {
        const RECORD_BYTES: u64 = 128;

        let tensors = self.tensors.len()
            + self
                .variants
                .iter()
                .map(|variant| variant.tensors.len())
                .sum::<usize>();
        (tensors as u64).saturating_mul(RECORD_BYTES)
    }

    /// Returns `config.json`, of the root or of the first module that has one.
    pub fn config(&self) -> Option<&Value> {
        self.documents.get("config.json")
    }

    /// Returns whether any configuration states a quantization.
    fn states_quantization(&self) -> bool {
        self.documents.contains_key("hf_quant_config.json")
            || self.config().is_some_and(|config| {
                has_quantization_key(config)
                    || config.get("text_config").is_some_and(has_quantization_key)
            })
    }
}

fn has_quantization_key(config: &Value) -> bool {
    ["quantization_config", "quantization", "compression_config"]
        .iter()
        .any(|key| config.get(key).is_some())
}

#[cfg(test)]
mod tests {
    use super::sample::small;
    use super::*;

    #[test]
    fn missing_configuration_leaves_weights_exact() {
        let model = assemble(&small("a/b", "0123456")).expect("a model");
        assert_eq!(model.inventory.bytes().get(), 16);
        assert_eq!(model.parameters, Some(4));

        assert_eq!(
            model.architecture,
            Err(crate::model::Unsupported::NoConfiguration),
            "the cache is unknown"
        );
    }

    #[test]
    fn broken_configuration_is_named() {
        let mut metadata = small("a/b", "0123456");
        metadata.unreadable.insert(
            "config.json".into(),
            "it is not JSON: expected value".into(),
        );
        let model = assemble(&metadata).expect("a model");
        let error = model.architecture.expect_err("no architecture").to_string();
        assert!(
            error.contains("config.json") && error.contains("not JSON"),
            "{error}"
        );
    }

    #[test]
    fn largest_projector_becomes_component() {
        let mut metadata = small("a/b-GGUF", "0123456");
        metadata.projectors = vec!["mmproj-F16.gguf".into(), "mmproj-F32.gguf".into()];

        metadata.siblings = vec![
            ("b-Q8_0.gguf".into(), Some(900)),
            ("mmproj-F16.gguf".into(), Some(20)),
            ("mmproj-F32.gguf".into(), Some(40)),
        ];

        let model = assemble(&metadata).expect("a model");
        let found: Vec<_> = model
            .components
            .iter()
            .map(|it| (&*it.name, &*it.class, it.bytes.get()))
            .collect();

        assert_eq!(found, [("mmproj", "mmproj-F32.gguf", 40)]);
    }

    #[test]
    fn component_configuration_is_reduced() {
        let mut metadata = small("a/b", "0123456");
        metadata.components = vec![Component {
            name: "vae".into(),
            class: "diffusers.AutoencoderKL".into(),
        }];
        let config = serde_json::json!({"_class_name": "AutoencoderKL", "force_upcast": true,
            "latents_mean": null, "block_out_channels": [128, 256], "zeros": vec![0; 65],
            "nested": {"a": 1}, "lists": [[1]], "long": "x".repeat(129),
            "up_block_types": ["UpBlock2D"], "words": vec!["x"; 17],
            "long_words": vec!["x".repeat(65)]});
        metadata.documents.insert("vae/config.json".into(), config);
        let model = assemble(&metadata).expect("a model");
        let left = serde_json::json!({"_class_name": "AutoencoderKL", "force_upcast": true,
            "latents_mean": null, "block_out_channels": [128, 256],
            "up_block_types": ["UpBlock2D"]});
        assert_eq!(model.components[0].config, Some(left));
        let many: serde_json::Map<_, _> = (0..1000)
            .map(|key| (key.to_string(), Value::from(key)))
            .collect();
        metadata
            .documents
            .insert("vae/config.json".into(), Value::Object(many));
        let model = assemble(&metadata).expect("a model");
        assert_eq!(
            model.components[0]
                .config
                .as_ref()
                .and_then(Value::as_object)
                .map(serde_json::Map::len),
            Some(256)
        );
    }

    #[test]
    fn too_many_variants_are_rejected() {
        let empty_variant = || Variant {
            files: Vec::new(),
            evidence: VariantEvidence::Length,
            tensors: Vec::new(),
            gguf: None,
            why_not: None,
        };

        let assemble_variants = |count| {
            let mut metadata = small("a/b", "0123456");
            metadata.variants = std::iter::repeat_with(empty_variant).take(count).collect();
            assemble(&metadata).map(|model| model.variants.len())
        };

        assert_eq!(assemble_variants(MAX_VARIANTS), Ok(MAX_VARIANTS + 1));
        assert_eq!(
            assemble_variants(MAX_VARIANTS + 1),
            Err(RecordError::TooManyVariants)
        );
    }

    #[test]
    fn endless_warnings_are_bounded() {
        let mut metadata = small("a/b", "0123456");

        // The maximum number that the headers of a repository can raise.
        metadata.warnings = (0..4096 * 9)
            .map(|warning| format!("model-{warning}.safetensors: a warning"))
            .collect();
        metadata
            .unreadable
            .insert("config.json".into(), "x".repeat(4 << 20));
        let model = assemble(&metadata).expect("a model");
        let bytes: usize = model.warnings.iter().map(String::len).sum();
        assert!(
            model.warnings.len() <= 65 && bytes <= 20 << 10,
            "{} of {bytes} bytes",
            model.warnings.len()
        );

        let why = model.architecture.expect_err("no architecture").to_string();
        assert!(why.len() < 2 << 10, "{}", why.len());
    }

    #[test]
    fn inferred_headers_are_assumptions() {
        let mut metadata = small("a/b", "0123456");
        metadata.evidence = Evidence::Inferred { read: 2, of: 5 };
        let model = assemble(&metadata).expect("a model");
        assert!(model.warnings.is_empty());
        assert!(
            model
                .assumptions
                .iter()
                .any(|assumption| assumption.starts_with("2 of 5"))
        );
    }
}
