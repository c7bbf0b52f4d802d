//! `pack`: writes the metadata of one model into one file, for hosts without a network.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Problem, SCHEMA_VERSION};
use serde::{Deserialize, Serialize};

use super::arguments::PackArguments;
use super::in_process::Source;
use super::output::{self, Output, runtime_problem};
use crate::api::client::block_on;
use crate::repository::bundle;

/// The written bundle and its origin.
#[derive(Debug, Serialize, Deserialize)]
struct PackReport {
    schema_version: u32,
    /// The path of the bundle.
    bundle: String,
    /// The bundle's length.
    bundle_bytes: u64,
    /// SHA-256 of the content, as in the bundle's first line.
    sha256: String,
    repo: String,
    revision: Option<String>,
    commit: Option<String>,
    file: Option<String>,
    /// Whether the Hub serves this metadata only to users who accepted the model's terms.
    gated: bool,
}

/// Runs `pack`.
pub(super) fn run(arguments: &PackArguments) -> u8 {
    let output = Output {
        json: arguments.json,
    };

    match block_on(pack(arguments)) {
        Ok(Ok(packed)) => {
            if packed.gated {
                output::remark(&format!(
                    "warning: {} is gated: share {} only with users who have accepted its terms",
                    packed.repo, packed.bundle
                ));
            }
            output.data(&packed, text);
            Reason::Fits.exit_code()
        }
        Ok(Err(problem)) => output.problem(&problem),
        Err(error) => output.problem(&runtime_problem(&error)),
    }
}

async fn pack(arguments: &PackArguments) -> Result<PackReport, Problem> {
    let metadata = Source::for_model(&arguments.model, arguments.file.as_deref())?
        .metadata()
        .await?;
    let packed = bundle::pack(&metadata)?;
    let path = arguments.output.display().to_string();
    bundle::write(&packed, &arguments.output)
        .map_err(|error| Problem::new(Reason::Usage, format!("cannot write {path}: {error}")))?;

    // An adapter's bundle also holds its base model.
    let gated = metadata.gated || metadata.base.as_ref().is_some_and(|base| base.gated);
    let identity = metadata.identity;

    Ok(PackReport {
        schema_version: SCHEMA_VERSION,
        bundle: path,
        bundle_bytes: packed.bytes.len() as u64,
        sha256: packed.sha256,
        repo: identity.repo,
        revision: identity.revision,
        commit: identity.commit,
        file: identity.file,
        gated,
    })
}

fn text(packed: &PackReport) -> String {
    let commit = packed
        .commit
        .as_deref()
        .map_or_else(String::new, |commit| format!(" at {commit}"));
    let file = packed
        .file
        .as_deref()
        .map_or_else(String::new, |file| format!(", {file}"));
    let (bytes, hash) = (Bytes::new(packed.bundle_bytes), &packed.sha256);

    format!(
        "{}: {}{commit}{file}; {bytes}, sha256 {hash}\n",
        packed.bundle, packed.repo
    )
}
