//! Answers computed in this process if no daemon runs, and reads that a client does for the daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hf_mem_core::device::Snapshot;
use hf_mem_core::evaluate;
use hf_mem_core::evaluate::HostView;
use hf_mem_core::model::Model;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::question::ModelQuestion;
use hf_mem_core::report::raw_json::RawJson;
use hf_mem_core::report::{Answer, Problem, Question};
use tokio::sync::watch;

use super::arguments::{HostArguments, QuestionArguments};
use super::output;
use super::question::QuestionKind;
use super::site::Site;
use crate::devices::holders::HostRoots;
use crate::devices::nvml::{Margins, NvmlOptions};
use crate::devices::sampler::{Reading, Sampler, SamplerOptions, read_once};
use crate::files;
use crate::repository::{
    Described, HubSettings, LocalFolders, Metadata, ModelReference, Place, SourceClient,
    SourceSettings,
};

/// The time limit for the driver. Without persistence mode it wakes each GPU for some seconds.
const DRIVER_DEADLINE: Duration = Duration::from_secs(30);

/// The model folder of Ollama's system service, as its installer sets it up.
const OLLAMA_SERVICE_FOLDER: &str = "/usr/share/ollama/.ollama/models";

/// The model in question with its draft, and the client that reads them.
pub(super) struct Source {
    reference: ModelReference,
    draft: Option<ModelReference>,
    client: SourceClient,
}

impl Source {
    /// Returns the source of the command line's model and draft, with settings from the
    /// environment.
    pub(super) fn new(arguments: &QuestionArguments) -> Result<Self, Problem> {
        let options = &arguments.options;
        let draft = options.draft.as_deref().map(|draft| {
            ModelReference::parse(draft, options.draft_file.as_deref(), path_exists)
                .map_err(|error| Problem::from(error).with_draft())
        });

        Ok(Self {
            draft: draft.transpose()?,
            ..Self::for_model(&arguments.model, options.file.as_deref())?
        })
    }

    /// Returns the source of `model`, or of one `file` of it.
    pub(super) fn for_model(model: &str, file: Option<&str>) -> Result<Self, Problem> {
        let reference = ModelReference::parse(model, file, path_exists)?;
        let mut settings = SourceSettings::new(HubSettings::from_environment(variable)?);
        settings.cache_folder = cache_folder();
        settings.folders = folders();

        Ok(Self {
            reference,
            draft: None,
            client: SourceClient::new(settings),
        })
    }

    /// Completes `question` so that the daemon can answer it.
    ///
    /// Sets the name and revision of a Hub repository, or adds the metadata of a local model; the
    /// same for the draft.
    pub(super) async fn complete(&self, question: &mut Question) -> Result<(), Problem> {
        self.complete_model(&self.reference, &mut question.model)
            .await?;

        if let (Some(reference), Some(draft)) = (&self.draft, &mut question.draft) {
            self.complete_model(reference, draft)
                .await
                .map_err(Problem::with_draft)?;
        }

        Ok(())
    }

    async fn complete_model(
        &self,
        reference: &ModelReference,
        question: &mut ModelQuestion,
    ) -> Result<(), Problem> {
        if let Place::Hub { repo, revision } = &reference.place {
            question.repo.clone_from(repo);
            question.revision.clone_from(revision);
            return Ok(());
        }

        let metadata = self.read(reference).await?;
        question.repo.clone_from(&metadata.identity.repo);

        let metadata = RawJson::new(&metadata).map_err(|error| {
            Problem::new(
                Reason::Internal,
                format!("cannot serialize the model's metadata: {error}"),
            )
        })?;
        question.metadata = Some(metadata);

        Ok(())
    }

    /// Reads the model's metadata with this user's access rights.
    pub(super) async fn metadata(&self) -> Result<Metadata, Problem> {
        self.read(&self.reference).await
    }

    async fn read(&self, reference: &ModelReference) -> Result<Metadata, Problem> {
        let auth = self.client.own_auth(reference);
        Ok(self
            .client
            .read(reference, &auth, SystemTime::now())
            .await?)
    }

    /// Reads the model and its draft, and whether one of them can have changed since.
    async fn describe(&self) -> Result<(Arc<Model>, bool), Problem> {
        let described = self.describe_model(&self.reference).await?;
        let Some(reference) = &self.draft else {
            return Ok((described.model, described.stale));
        };

        let draft = self
            .describe_model(reference)
            .await
            .map_err(Problem::with_draft)?;
        let model = Model::clone(&described.model).with_draft(draft.model);

        Ok((Arc::new(model), described.stale || draft.stale))
    }

    async fn describe_model(&self, reference: &ModelReference) -> Result<Described, Problem> {
        let auth = self.client.own_auth(reference);
        Ok(self
            .client
            .describe(reference, &auth, SystemTime::now())
            .await?)
    }

    /// Returns this user's Hub token, which the daemon then uses instead of its own.
    pub(super) fn token(&self) -> Option<crate::api::peer::HubToken> {
        let references = [Some(&self.reference), self.draft.as_ref()];
        references
            .into_iter()
            .flatten()
            .find_map(|reference| self.client.own_auth(reference).token().cloned())
            .map(|token| crate::api::peer::HubToken::new(token.reveal()))
    }
}

/// Answers `question` in this process.
///
/// Site settings come from the file `config`, else from the daemon's default configuration file.
pub(super) async fn answer(
    kind: QuestionKind,
    question: &Question,
    source: &Source,
    host: &HostArguments,
    config: Option<&Path>,
) -> Result<Answer, Problem> {
    let site = Site::read(config)?;
    let rules = &site.rules;
    if let Some(name) = &question.engine.name {
        // Rejects a wrong name before any reading.
        rules
            .engines
            .by_name(name)
            .map_err(|error| Problem::new(Reason::Usage, error.to_string()))?;
    }

    let host_view = match (&question.gpus, kind) {
        (Some(spec), _) => {
            let declared = crate::devices::snapshot_file::resolve(spec, SystemTime::now())?;
            Some(HostView::new(&declared.snapshot, &declared.leased))
        }
        (None, QuestionKind::Fits) => {
            let snapshot = read_once(&nvml_options(host, site.margins()), DRIVER_DEADLINE)?;
            let mut view = HostView::new(&snapshot, &BTreeMap::new());
            view.availability = view.availability.keeping(site.margin());
            Some(view)
        }
        (None, QuestionKind::Estimate) => None,
    };

    let (model, stale) = source.describe().await?;
    let mut question = question.clone();
    site.complete(&mut question, &model);

    let mut answer = match (kind, host_view) {
        (QuestionKind::Fits, Some(view)) => evaluate::fits(&question, &model, &view, rules),
        (_, view) => evaluate::estimate(&question, &model, view, rules),
    }?;
    evaluate::note_staleness(&mut answer, stale);

    if let Some(warning) = site.warning {
        output::remark(&format!("warning: {warning}"));
        answer.warnings.push(warning);
    }

    Ok(answer)
}

/// Reads this host's devices once.
pub(super) fn snapshot(host: &HostArguments) -> Result<Snapshot, Problem> {
    Ok(read_once(
        &nvml_options(host, Margins::default()),
        DRIVER_DEADLINE,
    )?)
}

fn nvml_options(host: &HostArguments, margins: Margins) -> NvmlOptions {
    NvmlOptions {
        library: host.nvml.clone(),
        roots: HostRoots::from_environment(),
        margins,
    }
}

/// A stream of readings of this host's devices.
pub(super) struct ReadingStream {
    _sampler: Sampler,
    readings: watch::Receiver<Option<Arc<Reading>>>,
}

impl ReadingStream {
    /// Starts a stream with one reading per `interval`.
    pub(super) fn start(host: &HostArguments, interval: Duration) -> Result<Self, Problem> {
        let options = SamplerOptions {
            nvml: nvml_options(host, Margins::default()),
            interval: Some(interval),
            ..SamplerOptions::default()
        };

        let sampler = Sampler::start(options).map_err(|error| {
            Problem::new(
                Reason::Internal,
                format!("cannot start the thread that reads the devices: {error}"),
            )
        })?;
        let readings = sampler.subscribe();

        Ok(Self {
            _sampler: sampler,
            readings,
        })
    }

    /// Waits for the next reading.
    pub(super) async fn next(&mut self) -> Result<Snapshot, Problem> {
        self.readings.changed().await.map_err(|_| sampler_ended())?;
        let reading = self
            .readings
            .borrow_and_update()
            .clone()
            .ok_or_else(sampler_ended)?;

        Ok(Snapshot::clone(&*reading.outcome.clone()?))
    }
}

fn sampler_ended() -> Problem {
    Problem::new(
        Reason::Internal,
        "the thread that reads the devices has ended",
    )
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns the model folders of Ollama and LM Studio.
///
/// If this user has no Ollama folder, uses that of Ollama's system service.
fn folders() -> LocalFolders {
    let mut folders = LocalFolders::from_environment(variable);
    let service = Path::new(OLLAMA_SERVICE_FOLDER);
    if folders.ollama.as_ref().is_none_or(|own| !is_folder(own)) && is_folder(service) {
        folders.ollama = Some(service.to_owned());
    }
    folders
}

fn path_exists(path: &Path) -> bool {
    let owned = path.to_owned();
    // On a timeout, reading the path reports the error.
    files::wait(path, move |disk| disk.exists(&owned)).unwrap_or(true)
}

fn is_folder(path: &Path) -> bool {
    let owned = path.to_owned();
    files::wait(path, move |disk| disk.is_folder(&owned)).unwrap_or(false)
}

/// Returns the folder of this user's metadata cache, in the XDG cache folder.
fn cache_folder() -> Option<PathBuf> {
    let base = absolute_path("XDG_CACHE_HOME")
        .or_else(|| absolute_path("HOME").map(|home| home.join(".cache")));

    base.map(|base| base.join("hf-mem-probe"))
}

fn absolute_path(name: &str) -> Option<PathBuf> {
    variable(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}
