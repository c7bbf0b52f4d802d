//! Reads the headers of safetensors and pickled weight files, many at once.
//!
//! If reads are expensive and the index allows it, the reader infers some headers instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use hf_mem_core::model::metadata::{Evidence, MAX_CLASSES};
use hf_mem_core::model::safetensors::HeaderError;
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::weight_files::{Documents, Index, WeightFile};

use super::infer_headers::{Examples, HeaderKinds};
use super::safetensors_headers::{
    BYTES_A_TENSOR, HeaderContext, HeaderFold, HeaderGuesses, read_headers,
};
use super::{Files, ReadWeights, infer_headers, pickle, predict_from_config};
use crate::admission::read_limits;
use crate::admission::read_limits::ReadSlot;
use crate::repository::error::SourceError;

const INDEX: &str = "model.safetensors.index.json";

/// Reads what `files` hold. If reads are expensive and the index allows it, infers some headers
/// instead of reading them.
pub(super) async fn read_all(
    source: &impl Files,
    files: &[WeightFile],
    documents: &Arc<Documents>,
    hub_totals: Option<&BTreeMap<String, u64>>,
    slot: &ReadSlot,
) -> Result<ReadWeights, SourceError> {
    let context = HeaderContext {
        guesses: HeaderGuesses::new(files, &documents.indices),
        slot,
    };

    if files
        .iter()
        .any(|file| !file.path.ends_with(".safetensors"))
    {
        return read_mixed(source, files, &context).await;
    }

    if !source.prefer_inference() {
        return Ok(read_headers(source, files, &context).await?.into_weights());
    }

    if let Some(totals) = hub_totals
        && let Some(weights) = predict(source, files, documents, totals, &context).await?
    {
        return Ok(weights);
    }

    read_sample(source, files, documents, hub_totals, &context).await
}

/// Returns how much work the index is, in bytes of an equally long header.
fn index_work(documents: &Documents) -> u64 {
    let names = documents
        .indices
        .get(INDEX)
        .map_or(0, |index| index.weight_map.len()) as u64;

    names.saturating_mul(BYTES_A_TENSOR)
}

/// Predicts the weights of the main model from its configuration. The Hub's totals are those of the
/// root folder, so modules in folders of their own are read.
async fn predict(
    source: &impl Files,
    files: &[WeightFile],
    documents: &Arc<Documents>,
    totals: &BTreeMap<String, u64>,
    context: &HeaderContext<'_>,
) -> Result<Option<ReadWeights>, SourceError> {
    if !documents.json.contains_key("config.json") {
        return Ok(None);
    }

    let (root, others) = files
        .iter()
        .cloned()
        .partition::<Vec<_>, _>(|file| file.component.is_empty());
    let (work, slot) = (index_work(documents), context.slot.clone());
    let (documents, totals) = (Arc::clone(documents), totals.clone());

    let predict = move || {
        predict_from_config::predict(
            &root,
            documents.indices.get(INDEX),
            documents.json.get("config.json")?,
            &totals,
        )
    };
    let Some(mut weights) = read_limits::work(work, slot, predict).await else {
        return Ok(None);
    };

    let read = read_headers(source, &others, context).await?.into_weights();
    weights.inventory.classes.extend(read.inventory.classes);
    weights.warnings.extend(read.warnings);
    weights.coverage.absorb(read.coverage);

    weights.evidence = Evidence::Inferred {
        read: count(&others),
        of: count(files),
    };

    Ok(Some(weights))
}

/// Reads a sample of the headers and infers the others from it. If that fails, reads the others,
/// too.
async fn read_sample(
    source: &impl Files,
    files: &[WeightFile],
    documents: &Arc<Documents>,
    hub_totals: Option<&BTreeMap<String, u64>>,
    context: &HeaderContext<'_>,
) -> Result<ReadWeights, SourceError> {
    let work = index_work(documents);
    let (own, shared) = (files.to_vec(), Arc::clone(documents));
    let choose = move || choose_sample(&own, shared);
    let Some((indexed, chosen)) = read_limits::work(work, context.slot.clone(), choose).await
    else {
        return Ok(read_headers(source, files, context).await?.into_weights());
    };

    let mut fold = HeaderFold::with_examples(Examples::default());
    fold.read(source, &chosen, context, Some(&indexed)).await?;
    let (own, totals, sample) = (
        files.to_vec(),
        hub_totals.cloned(),
        fold.take_sample(&chosen),
    );

    let infer = move || {
        let index = indexed.index()?;
        infer_headers::infer(&own, index, &indexed.kinds, totals.as_ref(), sample)
    };
    if let Some(weights) = read_limits::work(work, context.slot.clone(), infer).await {
        return Ok(weights);
    }

    let others: Vec<WeightFile> = files
        .iter()
        .filter(|file| !chosen.contains(file))
        .cloned()
        .collect();
    fold.read(source, &others, context, None).await?;

    Ok(fold.into_weights())
}

/// An index and the kinds of its tensors.
pub(super) struct IndexedKinds {
    documents: Arc<Documents>,
    pub(super) kinds: HeaderKinds,
}

impl IndexedKinds {
    pub(super) fn index(&self) -> Option<&Index> {
        self.documents.indices.get(INDEX)
    }
}

/// Chooses the files to read first, from which the others may be inferred.
fn choose_sample(
    files: &[WeightFile],
    documents: Arc<Documents>,
) -> Option<(Arc<IndexedKinds>, Vec<WeightFile>)> {
    let kinds = HeaderKinds::new(documents.indices.get(INDEX)?);
    let indexed = IndexedKinds { documents, kinds };
    let positions = infer_headers::sample(files, indexed.index()?, &indexed.kinds)?;
    let chosen = positions
        .into_iter()
        .filter_map(|position| files.get(position).cloned())
        .collect();

    Some((Arc::new(indexed), chosen))
}

/// Reads a mix of safetensors and pickled files, as a diffusers pipeline may have them.
async fn read_mixed(
    source: &impl Files,
    files: &[WeightFile],
    context: &HeaderContext<'_>,
) -> Result<ReadWeights, SourceError> {
    let (headed, pickled): (Vec<_>, Vec<_>) = files
        .iter()
        .cloned()
        .partition(|file| file.path.ends_with(".safetensors"));
    let mut weights = read_headers(source, &headed, context).await?.into_weights();
    let mut builder = InventoryBuilder::default();
    let read_pickle = |file: WeightFile| async move {
        let storages = pickle::storages(source, &file, context.slot).await?;
        Ok::<_, SourceError>((storages, file))
    };

    let mut reads =
        stream::iter(pickled.into_iter().map(read_pickle)).buffer_unordered(source.concurrency());
    while let Some((storages, file)) = reads.try_next().await? {
        storages.add_to(&file.component, &mut builder);
        weights.coverage.add(&file, storages.uncovered_bytes);

        if builder.classes() > MAX_CLASSES {
            return Err(too_many_kinds(source, &file));
        }

        weights.warnings.extend(
            storages
                .warnings
                .into_iter()
                .map(|warning| format!("{}: {warning}", file.path)),
        );
    }

    weights.inventory.classes.extend(builder.finish().classes);
    weights.evidence = Evidence::Lengths;

    Ok(weights)
}

/// The number of files, which is at most some thousands.
fn count(files: &[WeightFile]) -> u32 {
    u32::try_from(files.len()).unwrap_or(u32::MAX)
}

pub(super) fn too_many_kinds(source: &impl Files, file: &WeightFile) -> SourceError {
    bad_header(
        source,
        file,
        HeaderError::TooManyKinds(MAX_CLASSES).to_string(),
    )
}

pub(super) fn bad_header(source: &impl Files, file: &WeightFile, why: String) -> SourceError {
    SourceError::BadHeader {
        what: source.name().into(),
        file: file.path.clone(),
        why,
    }
}
