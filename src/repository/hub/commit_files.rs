//! The files of one commit, each fetched in as few requests as the Hub allows.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use url::Url;

use super::body::BodyPart;
use super::reading::HubReading;
use super::resolve_cache;
use crate::repository::buffer::Buffer;
use crate::repository::error::SourceError;
use crate::repository::read::Files;

/// The files of one commit.
pub(super) struct CommitFiles<'a> {
    pub(super) reading: &'a HubReading<'a>,
    pub(super) repo: &'a str,
    pub(super) commit: &'a str,
    /// Length of each document, from the list of files.
    pub(super) lengths: HashMap<String, u64>,
    /// Final URL of each file's redirects. A second range of a file is fetched from there
    /// directly.
    pub(super) final_urls: Mutex<HashMap<String, Url>>,
}

impl CommitFiles<'_> {
    async fn get(&self, path: &str, part: BodyPart) -> Result<Buffer, SourceError> {
        let final_url = self
            .final_urls
            .lock()
            .ok()
            .and_then(|urls| urls.get(path).cloned());
        let url = final_url.unwrap_or_else(|| self.resolve_url(path));

        let answer = self.reading.get(&url, part, Some(path)).await?;
        if let (BodyPart::Range { .. }, Ok(mut urls)) = (part, self.final_urls.lock()) {
            urls.insert(path.to_owned(), answer.url);
        }

        Ok(answer.body)
    }

    fn resolve_url(&self, path: &str) -> Url {
        let segments: Vec<&str> = ["resolve", self.commit]
            .into_iter()
            .chain(path.split('/'))
            .collect();

        self.reading.url_for(&[], self.repo, &segments)
    }

    /// Fetches a document from the resolve cache, where its redirect leads. Returns `None` if that
    /// fails, which says nothing about the document.
    async fn fetch_from_resolve_cache(&self, path: &str, limit: u64) -> Option<Buffer> {
        let length = *self.lengths.get(path)?;
        let endpoint = self.reading.endpoint.as_str();
        if !self.reading.resolve_cache.is_available(endpoint) {
            return None;
        }

        let after: Vec<&str> = [self.commit].into_iter().chain(path.split('/')).collect();
        let url = self
            .reading
            .url_for(&resolve_cache::PATH_PREFIX, self.repo, &after);
        let answer = self
            .reading
            .get_once(&url, BodyPart::Whole { limit }, path)
            .await;

        // The Hub may answer with the pointer of a file in LFS, which is shorter than the file.
        let text = answer
            .map(|answer| answer.body)
            .filter(|text| text.len() as u64 == length);
        self.reading
            .resolve_cache
            .record_answer(endpoint, text.is_some());

        text
    }
}

impl Files for CommitFiles<'_> {
    fn name(&self) -> &str {
        self.repo
    }

    async fn whole(&self, path: &str, limit: u64) -> Result<Buffer, SourceError> {
        match self.fetch_from_resolve_cache(path, limit).await {
            Some(text) => Ok(text),
            None => self.get(path, BodyPart::Whole { limit }).await,
        }
    }

    async fn range(&self, path: &str, start: u64, length: u64) -> Result<Buffer, SourceError> {
        self.get(path, BodyPart::Range { start, length }).await
    }

    fn concurrency(&self) -> usize {
        self.reading.concurrency
    }

    fn prefer_inference(&self) -> bool {
        true
    }

    fn exclude_wait(&self, time: Duration) {
        self.reading.budget.exclude_wait(time);
    }
}
