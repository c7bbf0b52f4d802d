//! Reads the variables of a CTranslate2 model, which lie between their data.
//!
//! On a disk every header is read. Over a network layers are predicted, in a bounded number of
//! requests.

use hf_mem_core::model::ctranslate2;
use hf_mem_core::model::ctranslate2::{Reading, Walk, Walked, Window};
use hf_mem_core::model::gguf::TablePlace;
use hf_mem_core::model::metadata::Evidence;
use hf_mem_core::model::weight_files::WeightFile;

use super::coverage::Coverage;
use super::headers::bad_header;
use super::{Files, ReadWeights};
use crate::repository::error::SourceError;

/// Maximum requests for one model. Whisper's largest need some twenty.
const MAX_REQUESTS: u32 = 40;

/// Reads the model that `files` are, or returns `None` if they are none of CTranslate2's.
pub(super) async fn read(
    source: &impl Files,
    files: &[WeightFile],
) -> Result<Option<ReadWeights>, SourceError> {
    let [file] = files else {
        return Ok(None);
    };
    let is_named_so = file.path.rsplit('/').next() == Some(ctranslate2::FILE_NAME);
    let Some(length) = file.bytes.filter(|_| is_named_so) else {
        return Ok(None);
    };

    let begin = source
        .range(&file.path, 0, ctranslate2::PREFIX_BYTES.min(length))
        .await?;
    if !ctranslate2::is_model_bin(&begin) {
        return Ok(None);
    }

    let walked = walk(source, file, length).await?;
    Ok(Some(to_weights(file, walked)))
}

/// Reads one window after another.
async fn walk(source: &impl Files, file: &WeightFile, length: u64) -> Result<Walked, SourceError> {
    let reading = if source.prefer_inference() {
        Reading::Predicted
    } else {
        Reading::EveryHeader
    };

    let mut walk = Walk::new(length, reading);
    let mut requests = 1;
    while let Some(Window { start, bytes }) = walk.window() {
        requests += 1;
        if reading == Reading::Predicted && requests > MAX_REQUESTS {
            let why = format!(
                "its variables are not listed within {MAX_REQUESTS} requests; download the \
                 repository and name its folder"
            );
            return Err(bad_header(source, file, why));
        }

        let window = source.range(&file.path, start, bytes).await?;
        walk.feed(&window)
            .map_err(|error| bad_header(source, file, error.to_string()))?;
    }

    walk.finish()
        .map_err(|error| bad_header(source, file, error.to_string()))
}

fn to_weights(file: &WeightFile, walked: Walked) -> ReadWeights {
    let mut coverage = Coverage::default();
    coverage.add_exact(file, walked.uncovered_bytes);

    let evidence = match (walked.is_understood, walked.read) {
        (false, _) => Evidence::Lengths,
        (true, read) if read == walked.variables => Evidence::EveryHeader,
        (true, read) => Evidence::Inferred {
            read,
            of: walked.variables,
        },
    };

    ReadWeights {
        inventory: walked.inventory,
        gguf: None,
        ctranslate2: Some(walked.model),
        table: TablePlace::default(),
        evidence,
        coverage,
        warnings: Vec::new(),
    }
}
