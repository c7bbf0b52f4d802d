//! The serialized form of another GGUF model in the repository of the chosen one.

use serde::{Deserialize, Serialize};

use super::record::{self, RecordError, TensorRecord};
use crate::bytes::Bytes;
use crate::model::Inventory;
use crate::model::gguf::{self, Gguf};
use crate::model::variant::{Content, FileVariant, Known};
use crate::model::weight_files::WeightFile;

/// A model of the repository that the request did not name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Its files; several if it is split.
    pub files: Vec<WeightFile>,
    /// How much of its tensors is known.
    pub evidence: VariantEvidence,
    /// The tensors, folded. Empty if only the file sizes are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorRecord>,
    /// Its own header, if that was read as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gguf: Option<Box<Gguf>>,
    /// Why its header cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// How much of a variant's tensors is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariantEvidence {
    /// The tensor table was read.
    Table,
    /// Only the lengths of its files are known.
    Length,
}

impl Variant {
    /// Returns the path of its first file.
    pub fn path(&self) -> &str {
        self.files.first().map_or("", |file| &file.path)
    }

    /// Returns the variant in the form that an assembled model keeps.
    pub(super) fn assembled(&self) -> Result<FileVariant, RecordError> {
        let inventory = record::inventory(&self.tensors)?;
        let known = match (&self.gguf, self.evidence) {
            _ if self.why_not.is_some() => {
                Known::Unreadable(self.why_not.clone().unwrap_or_default())
            }
            (Some(header), _) => whole(header, inventory),
            (None, VariantEvidence::Table) => Known::Tensors(inventory),
            (None, VariantEvidence::Length) => Known::Length,
        };

        Ok(FileVariant::new(&self.files, known))
    }
}

impl FileVariant {
    /// Creates a variant that consists of `files`.
    pub(super) fn new(files: &[WeightFile], known: Known) -> Self {
        Self {
            path: files
                .first()
                .map_or_else(String::new, |file| file.path.clone()),
            parts: u32::try_from(files.len()).unwrap_or(u32::MAX),
            file_bytes: files
                .iter()
                .map(|file| file.bytes.map(Bytes::new))
                .sum::<Option<Bytes>>(),
            known,
        }
    }
}

/// Returns the content of a file whose own header was read.
fn whole(header: &Gguf, inventory: Inventory) -> Known {
    let header = Gguf {
        inventory,
        ..header.clone()
    };

    match header.content() {
        gguf::Content::Model => Known::Model {
            architecture: Box::new(gguf::architecture(&header)),
            inventory: header.inventory,
        },
        gguf::Content::Projector => Known::NoModel(Content::Projector),
        gguf::Content::Adapter => Known::NoModel(Content::Adapter),
        gguf::Content::Vocabulary | gguf::Content::Other => Known::NoModel(Content::Other),
    }
}
