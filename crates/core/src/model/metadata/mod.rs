//! Everything that was read of a model, in one serialisable value.
//!
//! It is what the cache keeps by commit, what a bundle holds, and what a client sends to the daemon
//! for a model on its own disk. [`assemble()`] makes a [`Model`](crate::model::Model) of it without
//! touching anything else, so that all of these ways end in the same answer. Tensors are folded: a
//! mixture of 90 000 tensors takes some ten kilobytes.

pub mod assemble;
mod doubts;
mod record;
#[cfg(any(test, feature = "samples"))]
pub mod sample;
mod variant;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use assemble::assemble;
pub use record::{RecordError, TensorRecord};
pub use variant::{Variant, VariantEvidence};

use super::weight_files::{Component, WeightFile};
use crate::model::gguf::Gguf;
use crate::model::{Format, Identity, Inventory};

/// The version of this structure; entries of another version are read again from their source.
pub const VERSION: u32 = 3;
/// The largest serialised form that is accepted from a cache, a bundle or a client.
pub const MAX_SERIALISED_BYTES: u64 = 16 << 20;
/// GGUF models of one repository; each costs a plan.
pub const MAX_VARIANTS: usize = 128;
/// The component of an adapter's tensors that are loaded beside a GGUF model.
pub const ADAPTER: &str = "adapter";
/// The document with the parameters that Ollama has for a model.
pub const PARAMETERS: &str = "ollama/params.json";
/// Kinds of tensors that one model may have. Real ones have at most some hundred, and some thousand
/// where the numbers of layers stand inside words.
pub const MAX_CLASSES: usize = 20_000;

/// What was read of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// [`VERSION`] at the time of writing.
    pub version: u32,
    /// Where it was read.
    pub identity: Identity,
    /// How the weights are stored.
    pub format: Format,
    /// The files that hold the weights.
    pub files: Vec<WeightFile>,
    /// GGUF models of the same repository that were not chosen, with their lengths: other
    /// quantisations to suggest.
    pub siblings: Vec<(String, Option<u64>)>,
    /// Multimodal projectors beside a GGUF model.
    pub projectors: Vec<String>,
    /// The tensors, folded.
    pub tensors: Vec<TensorRecord>,
    /// `config.json`, `hf_quant_config.json`, `model_index.json`, components' configurations, by
    /// path.
    pub documents: BTreeMap<String, Value>,
    /// Documents that are there and could not be understood, and why.
    pub unreadable: BTreeMap<String, String>,
    /// Named components of a pipeline.
    pub components: Vec<Component>,
    /// For an adapter: the name of its base model.
    pub base_model: Option<String>,
    /// For an adapter: what was read of its base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Box<Metadata>>,
    /// The GGUF header, with its tensors moved to `tensors`.
    pub gguf: Option<Gguf>,
    /// The other GGUF models of the repository, where none was asked for by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    /// Whether some of it could not be read for a reason that will pass: not to be kept on disk.
    #[serde(skip)]
    pub partial: bool,
    /// Elements by type, as the Hub counts them.
    pub hub_totals: Option<BTreeMap<String, u64>>,
    /// Whether the Hub asks for a licence before it gives the files.
    pub gated: bool,
    /// How the tensors became known.
    #[serde(deserialize_with = "crate::strict_json::tagged")]
    pub evidence: Evidence,
    /// Why the headers cannot describe their files, for a person: then nothing is known of the
    /// weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contradiction: Option<String>,
    /// What was odd, for a person.
    pub doubts: Vec<String>,
}

/// How the tensors became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Evidence {
    /// The header of every file was read.
    EveryHeader,
    /// Some headers were read; index, file lengths and the Hub's totals prove the others.
    Proved {
        /// Headers read.
        read: u32,
        /// Files.
        of: u32,
    },
    /// Lengths only: pickled files have no header.
    Lengths,
}

impl Metadata {
    /// The inventory of its tensors, after checking that the records make sense.
    pub fn inventory(&self) -> Result<Inventory, RecordError> {
        record::inventory(&self.tensors)
    }

    /// About as many bytes as its tensors take when they are written down; documents and all else
    /// are as small as ever where no reading was large.
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

    /// `config.json`, of the root or of the first module that has one.
    pub fn config(&self) -> Option<&Value> {
        self.documents.get("config.json")
    }

    /// Whether any configuration speaks of quantisation.
    fn says_quantised(&self) -> bool {
        let keys = ["quantization_config", "quantization", "compression_config"];
        let says = |config: &Value| keys.iter().any(|key| config.get(key).is_some());
        self.documents.contains_key("hf_quant_config.json")
            || self
                .config()
                .is_some_and(|config| says(config) || config.get("text_config").is_some_and(says))
    }
}

#[cfg(test)]
mod tests {
    use super::sample::small;
    use super::*;

    #[test]
    fn without_a_configuration_weights_are_exact_and_the_cache_is_unknown() {
        let model = assemble(&small("a/b", "0123456")).expect("a model");
        assert_eq!(model.inventory.bytes().get(), 16);
        assert_eq!(model.parameters, Some(4));

        assert_eq!(
            model.architecture,
            Err(crate::model::Unsupported::NoConfiguration)
        );
    }

    #[test]
    fn a_broken_configuration_is_named() {
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
    fn the_largest_projector_beside_a_model_is_its_component() {
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
    fn of_a_components_configuration_what_is_long_or_nested_is_left_out() {
        let mut metadata = small("a/b", "0123456");
        metadata.components = vec![Component {
            name: "vae".into(),
            class: "diffusers.AutoencoderKL".into(),
        }];
        let config = serde_json::json!({"_class_name": "AutoencoderKL", "force_upcast": true, "latents_mean": null,
            "block_out_channels": [128, 256], "zeros": vec![0; 65], "nested": {"a": 1}, "lists": [[1]],
            "long": "x".repeat(129)});
        metadata.documents.insert("vae/config.json".into(), config);
        let model = assemble(&metadata).expect("a model");
        let left = serde_json::json!({"_class_name": "AutoencoderKL", "force_upcast": true, "latents_mean": null,
            "block_out_channels": [128, 256]});
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
    fn an_upload_lists_no_more_models_than_are_read() {
        let variant = || Variant {
            files: Vec::new(),
            evidence: VariantEvidence::Length,
            tensors: Vec::new(),
            gguf: None,
            why_not: None,
        };

        let with = |count| {
            let mut metadata = small("a/b", "0123456");
            metadata.variants = std::iter::repeat_with(variant).take(count).collect();
            assemble(&metadata).map(|model| model.variants.len())
        };

        assert_eq!(with(MAX_VARIANTS), Ok(MAX_VARIANTS + 1));
        assert_eq!(with(MAX_VARIANTS + 1), Err(RecordError::TooManyVariants));
    }

    #[test]
    fn of_endless_doubts_a_model_keeps_the_first() {
        let mut metadata = small("a/b", "0123456");

        // As many as the headers of a repository can raise.
        metadata.doubts = (0..4096 * 9)
            .map(|doubt| format!("model-{doubt}.safetensors: a doubt"))
            .collect();
        metadata
            .unreadable
            .insert("config.json".into(), "x".repeat(4 << 20));
        let model = assemble(&metadata).expect("a model");
        let bytes: usize = model.doubts.iter().map(String::len).sum();
        assert!(
            model.doubts.len() <= 65 && bytes <= 20 << 10,
            "{} of {bytes} bytes",
            model.doubts.len()
        );

        let why = model.architecture.expect_err("no architecture").to_string();
        assert!(why.len() < 2 << 10, "{}", why.len());
    }

    #[test]
    fn what_is_proved_is_no_doubt() {
        let mut metadata = small("a/b", "0123456");
        metadata.evidence = Evidence::Proved { read: 2, of: 5 };
        let model = assemble(&metadata).expect("a model");
        assert!(
            model.doubts.is_empty() && model.proofs.iter().any(|proof| proof.starts_with("2 of 5"))
        );
    }
}
