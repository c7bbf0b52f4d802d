//! The whole path in this process, for when no daemon answers; and what a client must read itself
//! for one that does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hf_mem_core::device::Snapshot;
use hf_mem_core::evaluate;
use hf_mem_core::evaluate::HostView;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::raw_json::RawJson;
use hf_mem_core::report::{Answer, Problem, Question};
use tokio::sync::watch;

use super::arguments::{HereArguments, QuestionArguments};
use super::fits::Asking;
use super::output;
use super::site::Site;
use crate::devices::holders::HostRoots;
use crate::devices::nvml::{Margins, NvmlOptions};
use crate::devices::sampler::{Reading, Sampler, SamplerOptions, read_once};
use crate::files;
use crate::repository::{
    HubSettings, LocalFolders, Metadata, ModelReference, Place, SourceClient, SourceSettings,
};

/// Longest wait for the driver: without persistence it wakes GPUs one by one, some seconds each.
const DRIVER_DEADLINE: Duration = Duration::from_secs(30);

/// Where Ollama keeps models when its installer has made a service of it.
const OLLAMA_SERVICE_FOLDER: &str = "/usr/share/ollama/.ollama/models";

/// The model that is asked about, and the way to it.
pub(super) struct Source {
    reference: ModelReference,
    client: SourceClient,
}

impl Source {
    /// From the command line and the environment.
    pub(super) fn new(arguments: &QuestionArguments) -> Result<Self, Problem> {
        Self::of(&arguments.model, arguments.options.file.as_deref())
    }

    /// The model `text`, and which of its files.
    pub(super) fn of(text: &str, file: Option<&str>) -> Result<Self, Problem> {
        let reference = ModelReference::parse(text, file, exists)?;
        let mut settings = SourceSettings::new(HubSettings::from_environment(variable)?);
        settings.cache_folder = cache_folder();
        settings.folders = folders();

        Ok(Self {
            reference,
            client: SourceClient::new(settings),
        })
    }

    /// Makes `question` one that the daemon can answer: a repository by name and revision, or for a
    /// model on this side of the socket all that was read of it.
    pub(super) async fn complete(&self, question: &mut Question) -> Result<(), Problem> {
        if let Place::Hub { repo, revision } = &self.reference.place {
            question.model.repo.clone_from(repo);
            question.model.revision.clone_from(revision);
            return Ok(());
        }

        let metadata = self.metadata().await?;
        question.model.repo.clone_from(&metadata.identity.repo);

        let metadata = RawJson::new(&metadata).map_err(|error| {
            Problem::new(
                Reason::Internal,
                format!("metadata cannot be sent: {error}"),
            )
        })?;
        question.model.metadata = Some(metadata);

        Ok(())
    }

    /// All that an answer needs of the model, as this user may see it.
    pub(super) async fn metadata(&self) -> Result<Metadata, Problem> {
        let auth = self.client.own_auth(&self.reference);
        Ok(self
            .client
            .read(&self.reference, &auth, SystemTime::now())
            .await?)
    }

    /// This user's own token for the Hub in question, for the daemon to use in place of its own.
    pub(super) fn token(&self) -> Option<crate::api::peer::HubToken> {
        self.client
            .own_auth(&self.reference)
            .token()
            .map(|token| crate::api::peer::HubToken::new(token.reveal()))
    }
}

/// Answers `question` without a daemon, by the settings of the site: those in the file `config`,
/// else the daemon's usual.
pub(super) async fn answer(
    asking: Asking,
    question: &Question,
    source: &Source,
    own: &HereArguments,
    config: Option<&Path>,
) -> Result<Answer, Problem> {
    let site = Site::read(config)?;
    let rules = &site.rules;
    if let Some(name) = &question.engine.name {
        // A wrong name is said before anything is read.
        rules
            .engines
            .by_name(name)
            .map_err(|error| Problem::new(Reason::Usage, error.to_string()))?;
    }

    let here = match (&question.gpus, asking) {
        (Some(spec), _) => {
            let declared = crate::devices::snapshot_file::resolve(spec, SystemTime::now())?;
            Some(HostView::new(&declared.snapshot, &declared.leased))
        }
        (None, Asking::Fits) => {
            let snapshot = read_once(&nvml(own, site.margins()), DRIVER_DEADLINE)?;
            let mut here = HostView::new(&snapshot, &BTreeMap::new());
            here.availability = here.availability.keeping(site.margin());
            Some(here)
        }
        (None, Asking::Estimate) => None,
    };

    let auth = source.client.own_auth(&source.reference);
    let described = source
        .client
        .describe(&source.reference, &auth, SystemTime::now())
        .await?;
    let mut question = question.clone();
    site.complete(&mut question, &described.model);

    let mut answer = match (asking, here) {
        (Asking::Fits, Some(here)) => evaluate::fits(&question, &described.model, &here, rules),
        (_, here) => evaluate::estimate(&question, &described.model, here, rules),
    }?;
    evaluate::note_staleness(&mut answer, described.stale);

    if let Some(warning) = site.warning {
        output::remark(&format!("warning: {warning}"));
        answer.warnings.push(warning);
    }

    Ok(answer)
}

/// One reading of this host's devices.
pub(super) fn snapshot(own: &HereArguments) -> Result<Snapshot, Problem> {
    Ok(read_once(&nvml(own, Margins::default()), DRIVER_DEADLINE)?)
}

fn nvml(own: &HereArguments, margins: Margins) -> NvmlOptions {
    NvmlOptions {
        library: own.nvml.clone(),
        roots: HostRoots::from_environment(),
        margins,
    }
}

/// Reading after reading of this host's devices.
pub(super) struct Readings {
    _sampler: Sampler,
    readings: watch::Receiver<Option<Arc<Reading>>>,
}

impl Readings {
    /// Begins, with one each `interval`.
    pub(super) fn start(own: &HereArguments, interval: Duration) -> Result<Self, Problem> {
        let options = SamplerOptions {
            nvml: nvml(own, Margins::default()),
            interval: Some(interval),
            ..SamplerOptions::default()
        };

        let sampler = Sampler::start(options).map_err(|error| {
            Problem::new(
                Reason::Internal,
                format!("no thread to read the devices: {error}"),
            )
        })?;
        let readings = sampler.subscribe();

        Ok(Self {
            _sampler: sampler,
            readings,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Result<Snapshot, Problem> {
        let gone = || {
            Problem::new(
                Reason::Internal,
                "the thread that reads the devices has ended",
            )
        };

        self.readings.changed().await.map_err(|_| gone())?;
        let reading = self.readings.borrow_and_update().clone().ok_or_else(gone)?;

        Ok(Snapshot::clone(&*reading.outcome.clone()?))
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The folders of Ollama and LM Studio. Where this user has none of Ollama's, that of its system
/// service.
fn folders() -> LocalFolders {
    let mut folders = LocalFolders::from_environment(variable);
    let service = Path::new(OLLAMA_SERVICE_FOLDER);
    if folders.ollama.as_ref().is_none_or(|own| !is_folder(own)) && is_folder(service) {
        folders.ollama = Some(service.to_owned());
    }
    folders
}

fn exists(path: &Path) -> bool {
    let asked = path.to_owned();
    // Reading a path that does not answer says so.
    files::wait(path, move |disk| disk.exists(&asked)).unwrap_or(true)
}

fn is_folder(path: &Path) -> bool {
    let asked = path.to_owned();
    files::wait(path, move |disk| disk.is_folder(&asked)).unwrap_or(false)
}

/// Where this user's known models are kept: the XDG cache folder.
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };

    let base =
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));

    base.map(|base| base.join("hf-mem-probe"))
}
