//! The client of all Hubs: connections, request slots and statistics that its readings share.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::budget::Budget;
use super::http::{self, Http};
use super::reading::HubReading;
use super::request_slots::HubRequestSlots;
use super::resolve_cache::ResolveCache;
use super::stats::HubStats;
use crate::files::{Disk, FileThreads};
use crate::repository::error::SourceError;
use crate::repository::settings::HubSettings;
use crate::repository::token::Auth;

/// The folder where most systems keep certificates. A message names it when reading them hangs.
const CERTIFICATES: &str = "/etc/ssl/certs";
/// Maximum length of a certificate file. The usual file of all public authorities has 250 KB.
const MAX_CERTIFICATE_BYTES: u64 = 16 << 20;

/// Sends requests to Hubs. The first request loads the system's certificates; creating the client
/// is cheap.
#[derive(Debug)]
pub(in crate::repository) struct HubClient {
    settings: HubSettings,
    request_slots: Arc<HubRequestSlots>,
    files: FileThreads,
    http: OnceCell<Http>,
    stats: Arc<HubStats>,
    resolve_cache: ResolveCache,
}

impl HubClient {
    /// Creates a client that reads certificates on the threads of `files`.
    pub(in crate::repository) fn new(settings: HubSettings, files: FileThreads) -> Self {
        let request_slots = Arc::new(HubRequestSlots::new(settings.limits.concurrency));
        Self {
            settings,
            request_slots,
            files,
            http: OnceCell::new(),
            stats: Arc::default(),
            resolve_cache: ResolveCache::default(),
        }
    }

    /// Returns how requests have ended so far.
    pub(in crate::repository) fn stats(&self) -> &HubStats {
        &self.stats
    }

    pub(in crate::repository) fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// Begins to read `repo` at `revision` as `auth`. All requests of the reading share one budget.
    pub(in crate::repository) async fn begin<'a>(
        &'a self,
        repo: &'a str,
        revision: &'a str,
        auth: &'a Auth,
    ) -> Result<HubReading<'a>, SourceError> {
        let http = self.http.get_or_try_init(|| self.build_http()).await?;
        let (endpoint, _) = self.settings.endpoint_for(repo);

        let budget = Budget::new(
            &self.settings.limits,
            Arc::clone(&self.request_slots),
            Arc::clone(&self.stats),
        );

        Ok(HubReading {
            http,
            endpoint,
            resolve_cache: &self.resolve_cache,
            repo,
            revision,
            auth,
            budget,
            concurrency: self.settings.limits.concurrency.max(1),
            long_list: std::sync::Mutex::default(),
        })
    }

    /// Builds the HTTP client on a file thread, because it reads certificates from the disk.
    async fn build_http(&self) -> Result<Http, SourceError> {
        let settings = self.settings.clone();
        let cert_file = std::env::var_os("SSL_CERT_FILE");
        let certificates = cert_file
            .as_deref()
            .map_or_else(|| Path::new(CERTIFICATES), Path::new)
            .to_owned();
        let is_named = cert_file.is_some();
        let started = Instant::now();

        let named = certificates.clone();
        let build = move |disk: &Disk| {
            if is_named {
                // The TLS library reads this file to its end, whatever it is: check it first.
                check_certificate_file(disk, &named)?;
            }
            http::build(&settings)
        };

        self.files
            .run(&certificates, build)
            .await
            .unwrap_or_else(|hung| {
                Err(SourceError::HubUnreachable {
                    url: self.settings.endpoint.to_string(),
                    why: format!("its certificates cannot be checked: {hung}"),
                    attempts: 0,
                    elapsed: started.elapsed(),
                })
            })
    }
}

fn check_certificate_file(disk: &Disk, path: &Path) -> Result<(), SourceError> {
    let read = disk.read(path, MAX_CERTIFICATE_BYTES);
    read.map(drop).map_err(|error| SourceError::BadSetting {
        name: "SSL_CERT_FILE".into(),
        why: format!(
            "{}: {error}; name a file with certificates, or unset it",
            path.display()
        ),
    })
}
