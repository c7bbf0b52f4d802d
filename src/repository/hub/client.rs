//! The client of all Hubs, and one reading of one repository through it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hf_mem_core::model::Identity;
use hf_mem_core::model::metadata::Metadata;
use hf_mem_core::model::weight_files::Listing;
use reqwest::{Client, NoProxy, Proxy, redirect};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;

use super::answer::{Wanted, cause};
use super::attempt::{self, Http, HubResponse};
use super::budget::Budget;
use super::info::{self, Revision};
use super::peers::Peers;
use super::refusal::RefusedRequest;
use super::shortcut::{self, Shortcuts};
use super::stats::HubStats;
use super::throttle::HubThrottle;
use crate::admission::read_limits;
use crate::admission::read_limits::{ReadPermit, ReadSlot, SMALL_BYTES};
use crate::files::{Disk, FileThreads};
use crate::repository::buffer::Buffer;
use crate::repository::error::SourceError;
use crate::repository::read;
use crate::repository::read::{Files, FoundFiles};
use crate::repository::settings::{HubSettings, Proxies};
use crate::repository::token::Auth;

/// Where most systems keep certificates: what a message names when reading them hangs.
const CERTIFICATES: &str = "/etc/ssl/certs";
/// The longest file of certificates; the usual one of all public authorities has 250 KB.
const MAX_CERTIFICATE_BYTES: u64 = 16 << 20;

/// Asks Hubs. Cheap until the first request, which loads the system's certificates.
#[derive(Debug)]
pub(in crate::repository) struct HubClient {
    settings: HubSettings,
    manners: Arc<HubThrottle>,
    files: FileThreads,
    http: OnceCell<Http>,
    tally: Arc<HubStats>,
    shortcuts: Shortcuts,
}

impl HubClient {
    /// `files` read the certificates.
    pub(in crate::repository) fn new(settings: HubSettings, files: FileThreads) -> Self {
        let manners = Arc::new(HubThrottle::new(settings.limits.concurrency));
        Self {
            settings,
            manners,
            files,
            http: OnceCell::new(),
            tally: Arc::default(),
            shortcuts: Shortcuts::default(),
        }
    }

    /// How requests have ended so far.
    pub(in crate::repository) fn tally(&self) -> &HubStats {
        &self.tally
    }

    pub(in crate::repository) fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// Begins to read `repo` at `revision` as `auth`; all requests of it share one budget.
    pub(in crate::repository) async fn begin<'a>(
        &'a self,
        repo: &'a str,
        revision: &'a str,
        auth: &'a Auth,
    ) -> Result<HubReading<'a>, SourceError> {
        let http = self.http.get_or_try_init(|| self.build()).await?;
        let (endpoint, _) = self.settings.endpoint_for(repo);

        let budget = Budget::new(
            &self.settings.limits,
            Arc::clone(&self.manners),
            Arc::clone(&self.tally),
        );

        let concurrency = self.settings.limits.concurrency.max(1);
        let (shortcuts, long_list) = (&self.shortcuts, Mutex::default());

        Ok(HubReading {
            http,
            endpoint,
            shortcuts,
            repo,
            revision,
            auth,
            budget,
            concurrency,
            long_list,
        })
    }

    /// The client, made where the certificates may be read from the disk.
    async fn build(&self) -> Result<Http, SourceError> {
        let settings = self.settings.clone();
        let files = std::env::var_os("SSL_CERT_FILE");
        let certificates = files
            .as_deref()
            .map_or_else(|| Path::new(CERTIFICATES), Path::new)
            .to_owned();
        let is_named = files.is_some();
        let started = Instant::now();

        let named = certificates.clone();
        let build = move |disk: &Disk| {
            if is_named {
                // The TLS library reads this file to its end, whatever it is.
                disk.read(&named, MAX_CERTIFICATE_BYTES).map_err(|error| {
                    SourceError::BadSetting {
                        name: "SSL_CERT_FILE".into(),
                        why: format!(
                            "{}: {error}; name a file with certificates, or unset it",
                            named.display()
                        ),
                    }
                })?;
            }
            build(&settings)
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

/// One repository being read.
#[derive(Debug)]
pub(in crate::repository) struct HubReading<'a> {
    http: &'a Http,
    endpoint: &'a Url,
    shortcuts: &'a Shortcuts,
    repo: &'a str,
    revision: &'a str,
    auth: &'a Auth,
    budget: Budget,
    concurrency: usize,
    /// The turn of a long list of files, while there is one.
    long_list: Mutex<ReadPermit>,
}

impl HubReading<'_> {
    /// Requests made so far.
    pub(in crate::repository) fn requests(&self) -> u32 {
        self.budget.requests()
    }

    /// The commit that the revision stands for, with what the same answer says of it.
    pub(in crate::repository) async fn revision(&self) -> Result<Revision, SourceError> {
        let mut url = self.address(&["api", "models"], self.repo, &["revision", self.revision]);
        url.set_query(Some("blobs=true"));

        let answer = match self.listing(&url).await {
            Err(SourceError::NotFound { what, place, hint }) if what.starts_with("repository") => {
                let hint = self
                    .did_you_mean()
                    .await
                    .map(|near| format!("did you mean {near}?"))
                    .or(hint);
                return Err(SourceError::NotFound { what, place, hint });
            }
            other => other?,
        };

        let (repo, bytes) = (self.repo.to_owned(), answer.body.len() as u64);
        let read = read_limits::work(bytes, (), move || info::revision(&answer.body, &repo));

        read.await.map_err(|why| self.nonsense(&why))
    }

    /// What the model API says. A list of some thousand files is long, and waits for its turn
    /// before it is held.
    async fn listing(&self, url: &Url) -> Result<HubResponse, SourceError> {
        let answer = self
            .get(
                url,
                Wanted::Beginning {
                    length: SMALL_BYTES + 1,
                },
                None,
            )
            .await?;
        if answer.body.len() as u64 <= SMALL_BYTES {
            return Ok(answer);
        }

        drop(answer);
        let since = Instant::now();
        let turn = read_limits::long_list().await;
        self.budget.extend(since.elapsed());

        *self
            .long_list
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = turn;

        self.get(
            url,
            Wanted::Whole {
                limit: info::MAX_INFO_BYTES,
            },
            None,
        )
        .await
    }

    /// Reads what an answer needs of `revision`. `file` is `--file`. The seat is to be kept as long
    /// as that is worked on.
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

        let files = HubFiles {
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

        let found = FoundFiles {
            identity,
            listing,
            gated: revision.gated,
            hub_totals: revision.totals,
        };

        let read = read::metadata(&files, found, file).await;

        // The list is gone with what was found.
        drop(
            self.long_list
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );

        read
    }

    /// The file tree, page by page. Pages are asked of the same Hub whatever host their link names:
    /// a mirror passes on the links of the Hub that it mirrors.
    async fn tree(&self, repo: &str, commit: &str) -> Result<Listing, SourceError> {
        let mut url = self.address(&["api", "models"], repo, &["tree", commit]);
        url.set_query(Some("recursive=true"));
        let mut listing = Listing::new();

        for _ in 0..info::MAX_TREE_PAGES {
            let answer = self
                .get(
                    &url,
                    Wanted::Whole {
                        limit: info::MAX_INFO_BYTES,
                    },
                    None,
                )
                .await?;
            info::add_tree_page(&answer.body, &mut listing).map_err(|why| self.nonsense(&why))?;
            let next = answer.next.and_then(|next| url.join(&next).ok());

            match next.as_ref().and_then(Url::query) {
                Some(query) => url.set_query(Some(query)),
                None => return Ok(listing),
            }
        }

        Err(self.nonsense(&format!(
            "it lists more than {} pages of files",
            info::MAX_TREE_PAGES
        )))
    }

    /// The repository of the same owner whose name is nearest: one request, and nothing is said if
    /// it fails.
    async fn did_you_mean(&self) -> Option<String> {
        let (owner, _) = self.repo.split_once('/')?;
        let mut url = self.endpoint.join("api/models").ok()?;
        url.query_pairs_mut()
            .append_pair("author", owner)
            .append_pair("limit", "200")
            .append_pair("sort", "downloads");
        let asking = self.get(&url, Wanted::Whole { limit: SMALL_BYTES }, None);
        let answer = tokio::time::timeout(Duration::from_secs(3), asking)
            .await
            .ok()?
            .ok()?;

        info::nearest(&answer.body, self.repo)
    }

    async fn get(
        &self,
        url: &Url,
        wanted: Wanted,
        file: Option<&str>,
    ) -> Result<HubResponse, SourceError> {
        let token = self.auth.token();
        let (repo, revision, token_given) = (self.repo, self.revision, token.is_some());
        let asked = RefusedRequest {
            endpoint: self.endpoint,
            repo,
            revision,
            file,
            token_given,
        };

        attempt::get(self.http, url, token, wanted, &asked, &self.budget).await
    }

    /// As [`HubReading::get`], in one attempt; `None` where that fails.
    async fn get_once(&self, url: &Url, wanted: Wanted, file: &str) -> Option<HubResponse> {
        let token = self.auth.token();
        let (repo, revision, token_given) = (self.repo, self.revision, token.is_some());
        let asked = RefusedRequest {
            endpoint: self.endpoint,
            repo,
            revision,
            file: Some(file),
            token_given,
        };

        attempt::get_once(self.http, url, token, wanted, &asked, &self.budget).await
    }

    /// `endpoint/before/owner/name/after`, every part encoded as one segment.
    fn address(&self, before: &[&str], repo: &str, after: &[&str]) -> Url {
        let mut url = self.endpoint.clone();

        // Only an address that cannot have a path fails, and endpoints are checked to have one.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .extend(before)
                .extend(repo.split('/'))
                .extend(after);
        }

        url
    }

    fn nonsense(&self, why: &str) -> SourceError {
        let hub = self.endpoint.as_str().trim_end_matches('/').to_owned();
        SourceError::MissingMetadata {
            what: format!("{hub} on {}", self.repo),
            why: format!("{why}; is HF_ENDPOINT a Hub?"),
        }
    }
}

/// The files of one commit.
struct HubFiles<'a> {
    reading: &'a HubReading<'a>,
    repo: &'a str,
    commit: &'a str,
    /// Lengths of documents, as they are listed.
    lengths: HashMap<String, u64>,
    /// Where each file's redirects ended, so that a second range of it needs no first request.
    final_urls: Mutex<HashMap<String, Url>>,
}

impl HubFiles<'_> {
    async fn get(&self, path: &str, wanted: Wanted) -> Result<Buffer, SourceError> {
        let known = self
            .final_urls
            .lock()
            .ok()
            .and_then(|urls| urls.get(path).cloned());
        let url = known.unwrap_or_else(|| {
            let segments: Vec<&str> = ["resolve", self.commit]
                .into_iter()
                .chain(path.split('/'))
                .collect();
            self.reading.address(&[], self.repo, &segments)
        });

        let answer = self.reading.get(&url, wanted, Some(path)).await?;
        if let (Wanted::Range { .. }, Ok(mut urls)) = (wanted, self.final_urls.lock()) {
            urls.insert(path.to_owned(), answer.url);
        }

        Ok(answer.body)
    }

    /// A document from the address that its redirect leads to. `None` where that is no use, which
    /// says nothing of the document.
    async fn shortcut(&self, path: &str, limit: u64) -> Option<Buffer> {
        let length = *self.lengths.get(path)?;
        let endpoint = self.reading.endpoint.as_str();
        if !self.reading.shortcuts.is_open(endpoint) {
            return None;
        }

        let after: Vec<&str> = [self.commit].into_iter().chain(path.split('/')).collect();
        let url = self.reading.address(&shortcut::BEFORE, self.repo, &after);
        let answer = self
            .reading
            .get_once(&url, Wanted::Whole { limit }, path)
            .await;

        // A file in LFS may be answered with its pointer: that is shorter than the file.
        let text = answer
            .map(|answer| answer.body)
            .filter(|text| text.len() as u64 == length);
        self.reading.shortcuts.answered(endpoint, text.is_some());

        text
    }
}

impl Files for HubFiles<'_> {
    fn name(&self) -> &str {
        self.repo
    }

    async fn whole(&self, path: &str, limit: u64) -> Result<Buffer, SourceError> {
        match self.shortcut(path, limit).await {
            Some(text) => Ok(text),
            None => self.get(path, Wanted::Whole { limit }).await,
        }
    }

    async fn range(&self, path: &str, start: u64, length: u64) -> Result<Buffer, SourceError> {
        self.get(path, Wanted::Range { start, length }).await
    }

    fn concurrency(&self) -> usize {
        self.reading.concurrency
    }

    fn reads_are_dear(&self) -> bool {
        true
    }

    fn waited(&self, time: Duration) {
        self.reading.budget.extend(time);
    }
}

/// One connection pool for all Hubs: TLS by rustls and ring with the system's certificates, proxies
/// as the settings say, no redirect followed by itself, and no address that is closed to Hubs.
fn build(settings: &HubSettings) -> Result<Http, SourceError> {
    // An error means that the program has chosen one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let peers = Peers::new(settings);
    let builder = || -> Result<reqwest::ClientBuilder, SourceError> {
        let plain = Client::builder()
            .dns_resolver(peers.clone())
            .user_agent(concat!("hf-mem-probe/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(settings.limits.connect)
            .no_proxy();
        proxies(&settings.proxies)?
            .into_iter()
            .try_fold(plain, |builder, proxy| Ok(builder.proxy(proxy)))
    };

    let refuse = |error: reqwest::Error| SourceError::BadSetting {
        name: "TLS".into(),
        why: format!(
            "no client can be made ({}); install CA certificates or set SSL_CERT_FILE",
            cause(&error)
        ),
    };

    let client = match builder()?.build() {
        Ok(client) => Ok(client),
        // A host without any certificate can still ask a Hub over plain HTTP; every https address
        // will be refused.
        Err(_) if settings.endpoint.scheme() == "http" => {
            let tls = rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder()?
                .tls_backend_preconfigured(tls)
                .build()
                .map_err(refuse)
        }
        Err(error) => Err(refuse(error)),
    }?;

    Ok(Http { client, peers })
}

/// How a proxy is made of its address.
type Make = fn(String) -> reqwest::Result<Proxy>;

fn proxies(settings: &Proxies) -> Result<Vec<Proxy>, SourceError> {
    let none_for = settings.none_for.as_deref().and_then(NoProxy::from_string);
    let mut proxies = Vec::new();

    let kinds: [(&str, &Option<String>, Make); 3] = [
        ("http_proxy", &settings.http, Proxy::http),
        ("HTTPS_PROXY", &settings.https, Proxy::https),
        ("ALL_PROXY", &settings.all, Proxy::all),
    ];
    for (name, address, make) in kinds {
        let Some(address) = address else { continue };
        let address = if address.contains("://") {
            address.clone()
        } else {
            format!("http://{address}")
        };

        let proxy = make(address).map_err(|error| SourceError::BadSetting {
            name: name.into(),
            why: format!(
                "it is not a proxy's address ({}); write http://host:port",
                cause(&error)
            ),
        })?;
        proxies.push(proxy.no_proxy(none_for.clone()));
    }

    Ok(proxies)
}
