//! The other GGUF models of a repository: what each holds, in a bounded number of small reads.
//!
//! Beside the one model that was read whole, the others differ in the types of their tensors only.
//! A few kilobytes around the place of the table say these to the byte (see [`gguf::find_table`]).
//! A file that is laid out otherwise is read whole, as long as there are few of those; what is left
//! is sized by its length.

use futures_util::{StreamExt, stream};
use hf_mem_core::model::gguf;
use hf_mem_core::model::gguf::{Gguf, LoneTable, TablePlace};
use hf_mem_core::model::metadata::{MAX_VARIANTS, TensorRecord, Variant, VariantEvidence};
use hf_mem_core::model::tensors::{Inventory, InventoryBuilder};
use hf_mem_core::model::weight_files::WeightFile;

use super::{Files, WeightsToRead, headers};
use crate::admission::read_limits::ReadSlot;
use crate::repository::error::SourceError;

/// Reads for all of them together, parts of split files each counted.
const MAX_READS: usize = 96;
/// Headers that are read whole because their table is not where it was looked for.
const MAX_WHOLE_HEADERS: usize = 4;
/// No table is longer: the largest have some two thousand tensors of eighty bytes.
const MAX_TABLE_BYTES: u64 = 2 << 20;
/// How far the metadata before a table may be longer or shorter: names, file type, importance
/// matrix.
const SLACK_BYTES: u64 = 16 << 10;

/// What the other models hold, and whether any of it could not be read for a reason that will pass.
#[derive(Debug, Default)]
pub(super) struct Variants {
    pub(super) all: Vec<Variant>,
    pub(super) partial: bool,
}

/// Reads `others`, quantisations of what `chosen` holds.
pub(super) async fn read(
    source: &impl Files,
    mut others: Vec<Vec<WeightFile>>,
    chosen: &WeightsToRead,
    seat: &ReadSlot,
) -> Variants {
    let Some(like) = &chosen.gguf else {
        return Variants::default();
    };

    others.truncate(MAX_VARIANTS);

    // The fewer parts a model has, the more models can be told for the same number of reads.
    others.sort_by_key(Vec::len);
    let mut left = MAX_READS;
    let affordable = |files: &Vec<WeightFile>| {
        let some = files.len() <= left;
        left = left.saturating_sub(files.len());
        some
    };

    let (asked, by_length): (Vec<_>, Vec<_>) = others.into_iter().partition(affordable);
    let like = Like {
        gguf: like,
        tensors: &chosen.inventory,
        table: chosen.table,
    };

    let tell =
        |files: Vec<WeightFile>| async move { (by_tables(source, &files, like).await, files) };
    let mut told = stream::iter(asked.into_iter().map(tell)).buffer_unordered(source.concurrency());
    let (mut variants, mut unlike) = (Variants::default(), Vec::new());
    while let Some((found, files)) = told.next().await {
        match found {
            Ok(Some(inventory)) => variants.all.push(exact(files, &inventory, None)),
            Ok(None) => unlike.push(files),
            Err(error) => {
                variants.partial |= error.is_transient();
                variants.all.push(lengths(files));
            }
        }
    }

    drop(told);
    unlike.sort_by(|left, right| {
        left.first()
            .map(|file| &file.path)
            .cmp(&right.first().map(|file| &file.path))
    });

    for (place, files) in unlike.into_iter().enumerate() {
        let known = files.len() == 1 && place < MAX_WHOLE_HEADERS;
        let read = if known {
            headers::gguf(source, &files, seat).await.map(Some)
        } else {
            Ok(None)
        };

        variants.all.push(match read {
            Ok(Some(WeightsToRead {
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

/// The model that others are held against.
#[derive(Clone, Copy)]
struct Like<'a> {
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

/// The tensors of one model by its tables alone; `None` where they are not where they should be or
/// are others.
async fn by_tables(
    source: &impl Files,
    files: &[WeightFile],
    like: Like<'_>,
) -> Result<Option<Inventory>, SourceError> {
    let mut inventories = Vec::new();
    for (part, file) in files.iter().enumerate() {
        let Some(length) = file.bytes.filter(|_| like.table.bytes <= MAX_TABLE_BYTES) else {
            return Ok(None);
        };

        // Parts behind the first have little metadata before their tables.
        let start = if part == 0 {
            like.table.start.saturating_sub(SLACK_BYTES)
        } else {
            0
        };

        let end = if part == 0 { like.table.start } else { 0 };
        let end = end
            .saturating_add(like.table.bytes)
            .saturating_add(SLACK_BYTES)
            .min(length);
        let window = source
            .range(&file.path, start, end.saturating_sub(start))
            .await?;

        match gguf::find_table(&window, start, length, &like.gguf.metadata) {
            Some(LoneTable { inventory, .. }) => inventories.push(inventory),
            // The first part of a split may hold metadata and nothing else.
            None if part == 0 && files.len() > 1 && holds_no_tensors(length, like) => {}
            None => return Ok(None),
        }
    }

    let whole = InventoryBuilder::join(inventories);
    Ok(gguf::same_tensors(&whole, like.tensors).then_some(whole))
}

/// Whether a file ends about where the metadata does.
fn holds_no_tensors(length: u64, like: Like<'_>) -> bool {
    length <= like.table.start.saturating_add(SLACK_BYTES)
}
