//! `pack`: all that an answer needs of one model, written into one file for hosts without a
//! network.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Problem, SCHEMA_VERSION};
use serde::{Deserialize, Serialize};

use super::arguments::PackArguments;
use super::in_process::Source;
use super::output::{self, Output};
use crate::api::client::block_on;
use crate::repository::bundle;

/// What was packed, and where it is now.
#[derive(Debug, Serialize, Deserialize)]
struct PackReport {
    schema_version: u32,
    /// The bundle.
    bundle: String,
    /// Its length.
    bundle_bytes: u64,
    /// SHA-256 of its content, which stands in its first line too.
    sha256: String,
    repo: String,
    revision: Option<String>,
    commit: Option<String>,
    file: Option<String>,
    /// Whether the Hub gives this metadata to accepted users only: the file should then stay among
    /// them.
    gated: bool,
}

/// `pack`.
pub(super) fn run(arguments: &PackArguments) -> u8 {
    let output = Output {
        json: arguments.json,
    };

    match block_on(pack(arguments)) {
        Ok(Ok(packed)) => {
            if packed.gated {
                output::remark(&format!(
                    "{} is gated: keep {} among those who have accepted its terms",
                    packed.repo, packed.bundle
                ));
            }
            output.data(&packed, text);
            Reason::Fits.exit_code()
        }
        Ok(Err(problem)) => output.problem(&problem),
        Err(error) => output.problem(&Problem::new(
            Reason::Internal,
            format!("no runtime: {error}"),
        )),
    }
}

async fn pack(arguments: &PackArguments) -> Result<PackReport, Problem> {
    let metadata = Source::of(&arguments.model, arguments.file.as_deref())?
        .metadata()
        .await?;
    let packed = bundle::pack(&metadata)?;
    let path = arguments.output.display().to_string();
    bundle::write(&packed, &arguments.output).map_err(|error| {
        Problem::new(Reason::Usage, format!("{path} cannot be written: {error}"))
    })?;

    // An adapter's bundle holds its base model too.
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
    let at = |commit: &Option<String>| {
        commit
            .as_deref()
            .map_or_else(String::new, |commit| format!(" at {commit}"))
    };

    let file = packed
        .file
        .as_deref()
        .map_or_else(String::new, |file| format!(", {file}"));
    let (bytes, hash) = (Bytes::new(packed.bundle_bytes), &packed.sha256);

    format!(
        "{}: {}{}{file}; {bytes}, sha256 {hash}\n",
        packed.bundle,
        packed.repo,
        at(&packed.commit)
    )
}
