//! Reads one repository from a Hub: its commit, its list of files, then its metadata.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hf_mem_core::model::Identity;
use hf_mem_core::model::metadata::Metadata;
use hf_mem_core::model::weight_files::Listing;
use tokio::time::Instant;
use url::Url;

use super::body::BodyPart;
use super::budget::Budget;
use super::commit_files::CommitFiles;
use super::http::Http;
use super::model_info::{self, Revision};
use super::refusal::RequestContext;
use super::request::{self, HubResponse};
use super::resolve_cache::ResolveCache;
use crate::admission::read_limits;
use crate::admission::read_limits::{ReadPermit, ReadSlot, SMALL_BYTES};
use crate::lock_ignoring_poison::lock_ignoring_poison;
use crate::repository::error::SourceError;
use crate::repository::read::{self, ListedFiles};
use crate::repository::token::Auth;

/// How long the search for a similar repository name may take.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(3);

/// The reading of one repository.
#[derive(Debug)]
pub(in crate::repository) struct HubReading<'a> {
    pub(super) http: &'a Http,
    pub(super) endpoint: &'a Url,
    pub(super) resolve_cache: &'a ResolveCache,
    pub(super) repo: &'a str,
    pub(super) revision: &'a str,
    pub(super) auth: &'a Auth,
    pub(super) budget: Budget,
    pub(super) concurrency: usize,
    /// The permit to hold a long list of files, while there is such a list.
    pub(super) long_list: Mutex<ReadPermit>,
}

impl HubReading<'_> {
    /// Returns the number of requests made so far.
    pub(in crate::repository) fn requests(&self) -> u32 {
        self.budget.requests()
    }

    /// Asks for the commit of the revision, and what the same answer says about the repository.
    pub(in crate::repository) async fn revision(&self) -> Result<Revision, SourceError> {
        let mut url = self.url_for(&["api", "models"], self.repo, &["revision", self.revision]);
        url.set_query(Some("blobs=true"));

        let answer = match self.fetch_info(&url).await {
            Err(SourceError::NotFound { what, place, hint }) if what.starts_with("repository") => {
                let hint = self
                    .similar_repository()
                    .await
                    .map(|near| format!("did you mean {near}?"))
                    .or(hint);
                return Err(SourceError::NotFound { what, place, hint });
            }
            other => other?,
        };

        let (repo, bytes) = (self.repo.to_owned(), answer.body.len() as u64);
        let read = read_limits::work(bytes, (), move || model_info::revision(&answer.body, &repo));

        read.await.map_err(|why| self.invalid_hub(&why))
    }

    /// Fetches the model API's answer. With some thousand files the answer is long: the reading
    /// then waits for the permit to hold it.
    async fn fetch_info(&self, url: &Url) -> Result<HubResponse, SourceError> {
        let prefix = BodyPart::Prefix {
            length: SMALL_BYTES + 1,
        };
        let answer = self.get(url, prefix, None).await?;
        if answer.body.len() as u64 <= SMALL_BYTES {
            return Ok(answer);
        }

        drop(answer);
        let since = Instant::now();
        let permit = read_limits::long_list().await;
        self.budget.exclude_wait(since.elapsed());
        *self.lock_long_list() = permit;

        let whole = BodyPart::Whole {
            limit: model_info::MAX_INFO_BYTES,
        };
        self.get(url, whole, None).await
    }

    fn lock_long_list(&self) -> MutexGuard<'_, ReadPermit> {
        lock_ignoring_poison(&self.long_list)
    }

    /// Reads the metadata that an answer needs of `revision`. `file` is `--file`. Keep the slot for
    /// as long as you work on the metadata.
    pub(in crate::repository) async fn metadata(
        &self,
        revision: Revision,
        file: Option<&str>,
    ) -> Result<(Metadata, ReadSlot), SourceError> {
        let listing = match revision.listing {
            Some(listing) => listing,
            None => self.tree(&revision.repo, &revision.commit).await?,
        };

        let documents = listing
            .iter()
            .filter(|(path, _)| path.rsplit('.').next() == Some("json"));
        let lengths = documents
            .filter_map(|(path, bytes)| Some((path.clone(), (*bytes)?)))
            .collect();

        let files = CommitFiles {
            reading: self,
            repo: &revision.repo,
            commit: &revision.commit,
            lengths,
            final_urls: Mutex::default(),
        };

        let identity = Identity {
            repo: revision.repo.clone(),
            revision: Some(self.revision.to_owned()),
            commit: Some(revision.commit.clone()),
            file: None,
        };

        let listed = ListedFiles {
            identity,
            listing,
            gated: revision.gated,
            hub_totals: revision.totals,
        };

        let read = read::metadata(&files, listed, file).await;

        // `read::metadata` has dropped the list, so its permit is free.
        drop(self.lock_long_list().take());

        read
    }

    /// Reads the file tree, page by page. Every page comes from this Hub, whatever host its link
    /// names: a mirror passes on the links of the Hub that it mirrors.
    async fn tree(&self, repo: &str, commit: &str) -> Result<Listing, SourceError> {
        let mut url = self.url_for(&["api", "models"], repo, &["tree", commit]);
        url.set_query(Some("recursive=true"));
        let mut listing = Listing::new();

        for _ in 0..model_info::MAX_TREE_PAGES {
            let whole = BodyPart::Whole {
                limit: model_info::MAX_INFO_BYTES,
            };
            let answer = self.get(&url, whole, None).await?;
            model_info::add_tree_page(&answer.body, &mut listing)
                .map_err(|why| self.invalid_hub(&why))?;
            let next = answer.next.and_then(|next| url.join(&next).ok());

            match next.as_ref().and_then(Url::query) {
                Some(query) => url.set_query(Some(query)),
                None => return Ok(listing),
            }
        }

        Err(self.invalid_hub(&format!(
            "it lists more than {} pages of files",
            model_info::MAX_TREE_PAGES
        )))
    }

    /// Searches for the repository of the same owner with the most similar name. The search costs
    /// one request; if it fails, there is no suggestion.
    async fn similar_repository(&self) -> Option<String> {
        let (owner, _) = self.repo.split_once('/')?;
        let mut url = self.endpoint.join("api/models").ok()?;
        url.query_pairs_mut()
            .append_pair("author", owner)
            .append_pair("limit", "200")
            .append_pair("sort", "downloads");
        let search = self.get(&url, BodyPart::Whole { limit: SMALL_BYTES }, None);
        let answer = tokio::time::timeout(SEARCH_TIMEOUT, search)
            .await
            .ok()?
            .ok()?;

        model_info::nearest_name(&answer.body, self.repo)
    }

    /// Fetches `part` of what is at `url`, with retries. `file` is the file it belongs to, for
    /// messages.
    pub(super) async fn get(
        &self,
        url: &Url,
        part: BodyPart,
        file: Option<&str>,
    ) -> Result<HubResponse, SourceError> {
        let context = self.context(file);
        request::get(
            self.http,
            url,
            self.auth.token(),
            part,
            &context,
            &self.budget,
        )
        .await
    }

    /// As [`HubReading::get`], in one attempt. Returns `None` if that attempt fails.
    pub(super) async fn get_once(
        &self,
        url: &Url,
        part: BodyPart,
        file: &str,
    ) -> Option<HubResponse> {
        let context = self.context(Some(file));
        request::get_once(
            self.http,
            url,
            self.auth.token(),
            part,
            &context,
            &self.budget,
        )
        .await
    }

    fn context<'c>(&'c self, file: Option<&'c str>) -> RequestContext<'c> {
        RequestContext {
            endpoint: self.endpoint,
            repo: self.repo,
            revision: self.revision,
            file,
            token_given: self.auth.token().is_some(),
        }
    }

    /// Returns `endpoint/before/owner/name/after`, every part encoded as one segment.
    pub(super) fn url_for(&self, before: &[&str], repo: &str, after: &[&str]) -> Url {
        let mut url = self.endpoint.clone();

        // Only an address that cannot have a path fails, and the settings reject such endpoints.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .extend(before)
                .extend(repo.split('/'))
                .extend(after);
        }

        url
    }

    fn invalid_hub(&self, why: &str) -> SourceError {
        let hub = self.endpoint.as_str().trim_end_matches('/').to_owned();
        SourceError::MissingMetadata {
            what: format!("{hub} on {}", self.repo),
            why: format!("{why}; is HF_ENDPOINT a Hub?"),
        }
    }
}
