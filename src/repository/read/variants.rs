//! The other GGUF models of a repository: what each holds, in a bounded number of small reads.
//!
//! The others differ from the model that was read only in the types of their tensors. A few
//! kilobytes around the position of the tensor table give these types exactly (see
//! [`gguf::find_table`]). A file with another layout is read whole if there are few of those. All
//! others are sized by their length.

use futures_util::{StreamExt, stream};
use hf_mem_core::model::gguf;
use hf_mem_core::model::gguf::{FoundTable, Gguf, TablePlace};
use hf_mem_core::model::metadata::{MAX_VARIANTS, TensorRecord, Variant, VariantEvidence};
use hf_mem_core::model::tensors::{Inventory, InventoryBuilder};
use hf_mem_core::model::weight_files::WeightFile;

use super::{Files, ReadWeights, gguf_headers};
use crate::admission::read_limits::ReadSlot;
use crate::repository::error::SourceError;

/// Maximum reads for all of them together. Each part of a split file counts.
const MAX_READS: usize = 96;
/// Maximum headers that are read whole because their table is elsewhere.
const MAX_WHOLE_HEADERS: usize = 4;
/// Maximum length of a table. The largest have some two thousand tensors of eighty bytes.
const MAX_TABLE_BYTES: u64 = 2 << 20;
/// Tolerance for the length of the metadata before a table: names, file type and importance matrix
/// differ.
const SLACK_BYTES: u64 = 16 << 10;

/// The other models, and whether a transient error left some of it unread.
#[derive(Debug, Default)]
pub(super) struct Variants {
    pub(super) all: Vec<Variant>,
    pub(super) partial: bool,
}

/// Reads `others`, which are quantizations of what `chosen` holds.
pub(super) async fn read(
    source: &impl Files,
    mut others: Vec<Vec<WeightFile>>,
    chosen: &ReadWeights,
    slot: &ReadSlot,
) -> Variants {
    let Some(gguf) = &chosen.gguf else {
        return Variants::default();
    };

    others.truncate(MAX_VARIANTS);

    // Prefer models with few parts: the reads then suffice for more models.
    others.sort_by_key(Vec::len);
    let mut left = MAX_READS;
    let is_affordable = |files: &Vec<WeightFile>| {
        let fits = files.len() <= left;
        left = left.saturating_sub(files.len());
        fits
    };

    let (affordable, by_length): (Vec<_>, Vec<_>) = others.into_iter().partition(is_affordable);
    let reference = ReferenceModel {
        gguf,
        tensors: &chosen.inventory,
        table: chosen.table,
    };

    let read_model = |files: Vec<WeightFile>| async move {
        (read_tables(source, &files, reference).await, files)
    };
    let mut reads =
        stream::iter(affordable.into_iter().map(read_model)).buffer_unordered(source.concurrency());
    let (mut variants, mut elsewhere) = (Variants::default(), Vec::new());
    while let Some((found, files)) = reads.next().await {
        match found {
            Ok(Some(inventory)) => variants.all.push(exact(files, &inventory, None)),
            Ok(None) => elsewhere.push(files),
            Err(error) => {
                variants.partial |= error.is_transient();
                variants.all.push(lengths(files));
            }
        }
    }

    drop(reads);
    elsewhere.sort_by(|left, right| {
        left.first()
            .map(|file| &file.path)
            .cmp(&right.first().map(|file| &file.path))
    });

    for (place, files) in elsewhere.into_iter().enumerate() {
        let is_readable = files.len() == 1 && place < MAX_WHOLE_HEADERS;
        let read = if is_readable {
            gguf_headers::read(source, &files, slot).await.map(Some)
        } else {
            Ok(None)
        };

        variants.all.push(match read {
            Ok(Some(ReadWeights {
                inventory,
                gguf,
                coverage,
                ..
            })) => match coverage.contradiction() {
                None => exact(files, &inventory, gguf),
                why_not => Variant {
                    why_not,
                    ..lengths(files)
                },
            },
            Ok(None) => lengths(files),
            Err(error) => {
                variants.partial |= error.is_transient();
                Variant {
                    why_not: Some(error.to_string()),
                    ..lengths(files)
                }
            }
        });
    }

    variants.all.extend(by_length.into_iter().map(lengths));
    variants
        .all
        .sort_by(|left, right| left.path().cmp(right.path()));

    variants
}

/// The model that the others are compared with.
#[derive(Clone, Copy)]
struct ReferenceModel<'a> {
    gguf: &'a Gguf,
    tensors: &'a Inventory,
    table: TablePlace,
}

fn exact(files: Vec<WeightFile>, inventory: &Inventory, gguf: Option<Gguf>) -> Variant {
    let tensors = inventory.classes.iter().map(TensorRecord::from).collect();
    Variant {
        files,
        evidence: VariantEvidence::Table,
        tensors,
        gguf: gguf.map(Box::new),
        why_not: None,
    }
}

fn lengths(files: Vec<WeightFile>) -> Variant {
    Variant {
        files,
        evidence: VariantEvidence::Length,
        tensors: Vec::new(),
        gguf: None,
        why_not: None,
    }
}

/// Reads the tensors of one model from its tables alone. Returns `None` if a table is elsewhere or
/// names other tensors.
async fn read_tables(
    source: &impl Files,
    files: &[WeightFile],
    reference: ReferenceModel<'_>,
) -> Result<Option<Inventory>, SourceError> {
    let mut inventories = Vec::new();
    for (part, file) in files.iter().enumerate() {
        let Some(length) = file
            .bytes
            .filter(|_| reference.table.bytes <= MAX_TABLE_BYTES)
        else {
            return Ok(None);
        };

        // All parts but the first have little metadata before their tables.
        let start = if part == 0 {
            reference.table.start.saturating_sub(SLACK_BYTES)
        } else {
            0
        };

        let end = if part == 0 { reference.table.start } else { 0 };
        let end = end
            .saturating_add(reference.table.bytes)
            .saturating_add(SLACK_BYTES)
            .min(length);
        let window = source
            .range(&file.path, start, end.saturating_sub(start))
            .await?;

        match gguf::find_table(&window, start, length, &reference.gguf.metadata) {
            Some(FoundTable { inventory, .. }) => inventories.push(inventory),
            // The first part of a split model may hold metadata only.
            None if part == 0 && files.len() > 1 && holds_no_tensors(length, reference) => {}
            None => return Ok(None),
        }
    }

    let whole = InventoryBuilder::join(inventories);
    Ok(gguf::same_tensors(&whole, reference.tensors).then_some(whole))
}

/// Whether a file ends about where the metadata does.
fn holds_no_tensors(length: u64, reference: ReferenceModel<'_>) -> bool {
    length <= reference.table.start.saturating_add(SLACK_BYTES)
}
