//! The whole path in this process, for when no daemon answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use super::arguments::{ConnectionArguments, QuestionArguments};
use super::fits::Asking;
use crate::api::problem::Reason;
use crate::api::{Answer, Problem, Question};
use crate::devices::declared;
use crate::engines::Engines;
use crate::model::Model;
use crate::model::source::{ModelReference, metadata};
use crate::placement::Policy;
use crate::probe::{self, Here, Rules};

pub(super) struct Source {
    reference: ModelReference,
}
impl Source {
    pub(super) fn new(arguments: &QuestionArguments) -> Result<Self, Problem> {
        Ok(Self {
            reference: ModelReference::parse(&arguments.model, arguments.file.as_deref(), |path| path.exists())?,
        })
    }
    pub(super) async fn complete(&mut self, _question: &mut Question) -> Result<(), Problem> {
        Ok(())
    }
    async fn model(&mut self) -> Result<Model, Problem> {
        let crate::model::source::Place::Path(path) = &self.reference.place else { todo!() };
        let found = crate::model::source::read_local(path, self.reference.file.as_deref()).await?;
        metadata::assemble(&found).map_err(|error| Problem::new(Reason::MissingMetadata, error.to_string()))
    }
}
pub(super) fn is_file(spec: &str) -> bool {
    Path::new(spec).is_file()
}
pub(super) async fn answer(
    asking: Asking,
    question: &Question,
    source: &mut Source,
    _connection: &ConnectionArguments,
) -> Result<Answer, Problem> {
    let model = source.model().await?;
    let rules = Rules {
        engines: Engines::embedded().map_err(|error| Problem::new(Reason::Internal, error.to_string()))?,
        policy: Policy::default(),
    };
    let here = match &question.gpus {
        Some(spec) => Some(Here::of(
            &declared::resolve(spec, SystemTime::now())
                .map_err(|error| Problem::new(Reason::Usage, error.to_string()))?,
            &BTreeMap::new(),
        )),
        None => None,
    };
    match asking {
        Asking::Fits => probe::answer(question, &model, &here.expect("gpus"), &rules),
        Asking::Estimate => probe::estimate(question, &model, here, &rules),
    }
}
