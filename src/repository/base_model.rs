//! Reads the base model of an adapter along with it.
//!
//! An adapter is some megabytes that change a model of many gigabytes: alone it answers nothing.
//! The base it names is a repository of the same Hub. For an adapter on this host's disk it can
//! also be a local folder. A path that an adapter from a Hub names is one of its author's machine
//! and is never opened.

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
pub(super) enum AdapterOrigin<'a> {
    /// On a Hub or in the cache of one, under this name.
    Hub(&'a str),
    /// On this host's disk.
    Disk,
}

impl SourceClient {
    /// Adds the base model to `metadata` if it is an adapter that names one. Other metadata stays
    /// as it is.
    pub(super) async fn with_base(
        &self,
        mut metadata: Metadata,
        at: AdapterOrigin<'_>,
        reader: &FileReader,
        auth: &Auth,
        now: SystemTime,
    ) -> Result<Metadata, SourceError> {
        let Some(named) = metadata.base_model.clone() else {
            return Ok(metadata);
        };

        // A bundle includes its base model.
        if metadata.base.is_some() {
            return Ok(metadata);
        }

        let adapter = metadata.identity.repo.clone();
        let config = metadata.documents.get("adapter_config.json");
        let revision = config
            .and_then(|config| config.get("revision")?.as_str())
            .map(ToOwned::to_owned);
        let is_local = at == AdapterOrigin::Disk && self.is_local(&named).await;
        let reference = Self::base_reference(&adapter, &named, revision, at, is_local)?;
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
        .map_err(|error| base_model_error(error, &adapter))?;

        if base.base_model.is_some() || base.base.is_some() {
            let why = format!("its base model {named} is an adapter itself; use a merged model");
            return Err(SourceError::MissingMetadata { what: adapter, why });
        }
        // An engine loads only one quantization of it.
        base.variants.clear();

        metadata.partial |= base.partial;
        metadata.base = Some(Box::new(base));

        Ok(metadata)
    }

    /// Returns the identity for the Hub of the base model. A token goes only to the Hub that it is
    /// for, whatever an adapter names.
    fn base_auth(&self, base: &ModelReference, at: AdapterOrigin<'_>, auth: &Auth) -> Auth {
        // Local models are opened for this program's own user.
        let AdapterOrigin::Hub(adapter) = at else {
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

    /// Whether this disk has a folder or file at `named`.
    async fn is_local(&self, named: &str) -> bool {
        let path = PathBuf::from(named);
        let found = path.clone();
        self.files
            .run(&path, move |disk| disk.exists(&found))
            .await
            .unwrap_or(false)
    }

    /// Returns the reference of the base model `named`. `is_local` says whether this disk has such
    /// a path.
    fn base_reference(
        adapter: &str,
        named: &str,
        revision: Option<String>,
        at: AdapterOrigin<'_>,
        is_local: bool,
    ) -> Result<ModelReference, SourceError> {
        let text = match revision.filter(|revision| !revision.is_empty()) {
            Some(revision) => format!("{named}@{revision}"),
            None => named.to_owned(),
        };

        let parsed = if is_local {
            ModelReference::parse(named, None, |_| true)
        } else {
            ModelReference::parse(&text, None, |_| false)
        };

        match parsed {
            Ok(reference) if matches!(reference.place, Place::Hub { .. }) => Ok(reference),
            Ok(reference) if is_local => Ok(reference),
            _ => {
                let problem = if at == AdapterOrigin::Disk {
                    "neither a repository nor a local folder"
                } else {
                    "not a repository but a path of another machine"
                };
                let why = format!(
                    "base_model_name_or_path in adapter_config.json is {named:?}, {problem}"
                );
                Err(SourceError::MissingMetadata {
                    what: adapter.to_owned(),
                    why,
                })
            }
        }
    }
}

/// Adds the role as base model to an error about it.
fn base_model_error(error: SourceError, adapter: &str) -> SourceError {
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
    fn foreign_path_is_never_opened() {
        let place_of = |named: &str, at| {
            let is_local = at == AdapterOrigin::Disk;
            SourceClient::base_reference("a/lora", named, None, at, is_local)
                .map(|reference| reference.place)
        };

        let hub = Place::Hub {
            repo: "meta/base".into(),
            revision: None,
        };

        assert_eq!(place_of("meta/base", AdapterOrigin::Hub("a/lora")), Ok(hub));
        assert_eq!(
            place_of("/tmp", AdapterOrigin::Disk),
            Ok(Place::Path("/tmp".into()))
        );

        for named in ["/tmp", "./base", "../x/y", "C:\\models\\base", ""] {
            let error = place_of(named, AdapterOrigin::Hub("a/lora"))
                .expect_err(named)
                .to_string();
            assert!(error.contains("base_model_name_or_path"), "{error}");
        }

        let pinned = SourceClient::base_reference(
            "a/lora",
            "meta/base",
            Some("v2".into()),
            AdapterOrigin::Hub("a/lora"),
            false,
        )
        .expect("a reference");
        assert_eq!(pinned.name(), "meta/base@v2");
    }
}
