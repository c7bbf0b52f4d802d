//! The base model of an adapter, read beside it.
//!
//! An adapter is some megabytes that change a model of many gigabytes: alone it answers nothing.
//! What it names as its base is a repository of the same Hub, or for an adapter on this host's disk
//! a folder here. A path that an adapter from a Hub names is one of its author's machine and is
//! never opened.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hf_mem_core::model::metadata::Metadata;

use super::client::SourceClient;
use super::error::SourceError;
use super::permissions::FileReader;
use super::reference::{ModelReference, Place};
use super::token::Auth;

/// Where an adapter was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdapterAt<'a> {
    /// On a Hub, or in the cache of one, under this name.
    Hub(&'a str),
    /// On this host's disk.
    Disk,
}

impl SourceClient {
    /// `metadata` with its base model where it is an adapter that names one; whatever else as it
    /// is.
    pub(super) async fn with_base(
        &self,
        mut metadata: Metadata,
        at: AdapterAt<'_>,
        reader: &FileReader,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Metadata, SourceError> {
        let Some(named) = metadata.base_model.clone() else {
            return Ok(metadata);
        };

        // A bundle brings its base model along.
        if metadata.base.is_some() {
            return Ok(metadata);
        }

        let adapter = metadata.identity.repo.clone();
        let config = metadata.documents.get("adapter_config.json");
        let revision = config
            .and_then(|config| config.get("revision")?.as_str())
            .map(ToOwned::to_owned);
        let is_here = at == AdapterAt::Disk && self.is_here(&named).await;
        let reference = Self::base_reference(&adapter, &named, revision, at, is_here)?;
        let mut base = match &reference.place {
            Place::Hub { .. } => {
                self.read_from_hub(
                    reader,
                    &reference,
                    &self.base_auth(&reference, at, auth),
                    now,
                )
                .await
            }
            _ => self.read_path(Path::new(&named), None).await,
        }
        .map_err(|error| of_base(error, &adapter))?;

        if base.base_model.is_some() || base.base.is_some() {
            let why = format!(
                "its base model {named} is an adapter itself; ask for a model that was merged"
            );
            return Err(SourceError::MissingMetadata { what: adapter, why });
        }
        // Only one quantisation of it is loaded.
        base.variants.clear();

        metadata.partial |= base.partial;
        metadata.base = Some(Box::new(base));

        Ok(metadata)
    }

    /// As whom the Hub of the base model is asked. A token goes to the Hub that it is for and to no
    /// other, whatever an adapter names.
    fn base_auth(&self, base: &ModelReference, at: AdapterAt<'_>, auth: &Auth) -> Auth {
        // What is on this disk was opened for this program's own user.
        let AdapterAt::Hub(adapter) = at else {
            return self.own_auth(base);
        };

        let Place::Hub { repo, .. } = &base.place else {
            return Auth::Anonymous;
        };

        let (endpoint, own) = self.hub_settings().endpoint_for(adapter);
        match auth.token() {
            Some(token) if Some(token) == own => self.own_auth(base),
            Some(_) if self.hub_settings().endpoint_for(repo).0 != endpoint => Auth::Anonymous,
            _ => auth.clone(),
        }
    }

    /// Whether there is a folder or file of that name on this disk.
    async fn is_here(&self, named: &str) -> bool {
        let path = PathBuf::from(named);
        let asked = path.clone();
        self.files
            .run(&path, move |disk| disk.exists(&asked))
            .await
            .unwrap_or(false)
    }

    /// Where the model `named` as the base is; `is_here` says that the name is a path that exists
    /// on this disk.
    fn base_reference(
        adapter: &str,
        named: &str,
        revision: Option<String>,
        at: AdapterAt<'_>,
        is_here: bool,
    ) -> Result<ModelReference, SourceError> {
        let text = match revision.filter(|revision| !revision.is_empty()) {
            Some(revision) => format!("{named}@{revision}"),
            None => named.to_owned(),
        };

        let parsed = if is_here {
            ModelReference::parse(named, None, |_| true)
        } else {
            ModelReference::parse(&text, None, |_| false)
        };

        match parsed {
            Ok(reference) if matches!(reference.place, Place::Hub { .. }) => Ok(reference),
            Ok(reference) if is_here => Ok(reference),
            _ => {
                let why = format!(
                    "its base model is named as {named:?} (base_model_name_or_path in adapter_config.json), which is no repository{}",
                    if at == AdapterAt::Disk {
                        " and no folder here"
                    } else {
                        ": a path of another machine"
                    }
                );
                Err(SourceError::MissingMetadata {
                    what: adapter.to_owned(),
                    why,
                })
            }
        }
    }
}

/// An error about a base model says whose base it is.
fn of_base(error: SourceError, adapter: &str) -> SourceError {
    let role = format!("the base model of the adapter {adapter}");
    match error {
        SourceError::NotFound { what, place, hint } => {
            let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
            SourceError::NotFound {
                what,
                place,
                hint: Some(format!("it is {role}{hint}")),
            }
        }
        SourceError::Gated {
            repo,
            access_url,
            token_given,
        } => SourceError::Gated {
            repo: format!("{repo}, {role},"),
            access_url,
            token_given,
        },
        SourceError::Offline { what, folder } => SourceError::Offline {
            what: format!("{what}, {role},"),
            folder,
        },
        SourceError::MissingMetadata { what, why } => SourceError::MissingMetadata {
            what: format!("{what}, {role}"),
            why,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_another_machine_is_never_opened() {
        let place = |named: &str, at| {
            let is_here = at == AdapterAt::Disk;
            SourceClient::base_reference("a/lora", named, None, at, is_here)
                .map(|reference| reference.place)
        };

        let hub = Place::Hub {
            repo: "meta/base".into(),
            revision: None,
        };

        assert_eq!(place("meta/base", AdapterAt::Hub("a/lora")), Ok(hub));
        assert_eq!(
            place("/tmp", AdapterAt::Disk),
            Ok(Place::Path("/tmp".into()))
        );

        for named in ["/tmp", "./base", "../x/y", "C:\\models\\base", ""] {
            let error = place(named, AdapterAt::Hub("a/lora"))
                .expect_err(named)
                .to_string();
            assert!(error.contains("base_model_name_or_path"), "{error}");
        }

        let pinned = SourceClient::base_reference(
            "a/lora",
            "meta/base",
            Some("v2".into()),
            AdapterAt::Hub("a/lora"),
            false,
        )
        .expect("a reference");
        assert_eq!(pinned.name(), "meta/base@v2");
    }
}
