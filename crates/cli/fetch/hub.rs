//! The hub's routes: what a repository holds, and what a file of it is.
//!
//! Redirects are followed here rather than by the client, for two reasons: the hub tells a file's hash in its own answer, before
//! it points to a storage elsewhere; and the token goes to the hub alone.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hf_hub::Cache;
use limbic_train::RunError;
use serde::Deserialize;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use super::digest::Digest;

/// The hub where none is named by `HF_ENDPOINT`.
const ENDPOINT: &str = "https://huggingface.co";

/// More redirects than this lead nowhere.
const MOST_REDIRECTS: usize = 10;

/// A hub.
pub(super) struct Hub {
    agent: Agent,
    endpoint: Address,
    token: Option<Token>,
}

/// Never printed: it has no `Display`, and its `Debug` is mute.
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(hidden)")
    }
}

/// An http or https address in two parts, so that origins can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Scheme, host and port.
    origin: String,
    /// From the first slash on.
    path: String,
}

/// The files of a revision that are wanted.
#[derive(Debug)]
pub(super) struct Listing {
    /// The commit that the revision stands for.
    pub(super) commit: String,
    /// What is wanted of it.
    pub(super) files: Vec<RemoteFile>,
}

/// A file on a hub.
#[derive(Debug)]
pub(super) struct RemoteFile {
    /// Its path inside the repository.
    pub(super) name: String,
    /// Where it is.
    pub(super) address: Address,
    /// Bytes.
    pub(super) size: u64,
    /// Names its content.
    pub(super) etag: String,
    /// The digest of its content, where the hub tells.
    pub(super) digest: Option<Digest>,
}

#[derive(Deserialize)]
struct RepoInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Address {
    /// # Errors
    /// Another scheme, or no host.
    pub(super) fn new(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if !["http", "https"].contains(&scheme) || host.is_empty() {
            return Err(RunError::recipe(format!(
                "`{}` is no address; wanted http:// or https:// and a host",
                without_secrets(text)
            )));
        }
        Ok(Self {
            origin: format!("{scheme}://{}", host.to_ascii_lowercase()),
            path: path.to_string(),
        })
    }

    fn join(&self, path: &str) -> Self {
        Self {
            origin: self.origin.clone(),
            path: format!("{}{path}", self.path.trim_end_matches('/')),
        }
    }

    /// Where a `Location` header that was got here leads.
    fn redirected(&self, location: &str) -> anyhow::Result<Self> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(Self {
                origin: self.origin.clone(),
                path: location.to_string(),
            });
        }
        Self::new(location)
    }

    fn text(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&without_secrets(&self.text()))
    }
}

/// An address without a password and without a query, which on storages holds a signature.
fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = host.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => text.to_string(),
    }
}

impl Hub {
    /// The hub that `HF_ENDPOINT` names, with the token of `HF_TOKEN`, of the file that `HF_TOKEN_PATH` names, or of the one
    /// that Hugging Face's tools write.
    ///
    /// # Errors
    /// An endpoint that is no address, a token that cannot be sent.
    pub(super) fn from_env(cache: &Cache) -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let token = match (variable("HF_TOKEN"), variable("HF_TOKEN_PATH")) {
            (Some(token), _) => Some(token.trim().to_string()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(&path);
                let text = text.with_context(|| format!("HF_TOKEN_PATH: cannot read {path}"))?;
                Some(text.trim().to_string())
            }
            (None, None) => cache.token(),
        };
        if token
            .iter()
            .any(|token| !token.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err(RunError::recipe(
                "the token holds characters that no token has; set HF_TOKEN again",
            ));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("limbic/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)));
        Ok(Self {
            agent: config.build().into(),
            endpoint: Address::new(endpoint.trim_end_matches('/')).context("HF_ENDPOINT")?,
            token: token.filter(|token| !token.is_empty()).map(Token),
        })
    }

    /// The files of a revision that `select` chooses by name.
    ///
    /// # Errors
    /// No such repository or revision, or none that may be read; a hub that is not there.
    pub(super) fn list(
        &self,
        repo: &str,
        revision: &str,
        select: impl Fn(Vec<String>) -> Vec<String>,
    ) -> anyhow::Result<Listing> {
        let route = format!(
            "/api/models/{repo}/revision/{}",
            revision.replace('/', "%2F")
        );
        let address = self.endpoint.join(&route);
        let mut answer = self.get(&address, None)?;
        self.check(repo, revision, &answer)?;
        let text = answer.body_mut().with_config().limit(1 << 28);
        let text = text.read_to_string();
        let text = text.map_err(|error| anyhow!("{address}: {error}"))?;
        let info: RepoInfo = serde_json::from_str(&text)
            .with_context(|| format!("{address}: not the answer of a hub; check HF_ENDPOINT"))?;
        let names = info.siblings.into_iter().map(|file| file.rfilename);
        let mut files = Vec::new();
        for name in select(names.collect()) {
            let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\\');
            if !name.split('/').all(is_plain) {
                bail!("{address}: the hub lists a file `{name}`, which is no name inside a folder");
            }
            let path = format!("/{repo}/resolve/{}/{}", info.sha, escaped(&name));
            let address = self.endpoint.join(&path);
            let answer = self.head(&address)?;
            self.check(repo, revision, &answer)?;
            files.push(describe(name, address, answer.headers(), true)?);
        }
        Ok(Listing {
            commit: info.sha,
            files,
        })
    }

    /// The file at an address outside any hub.
    ///
    /// # Errors
    /// None there.
    pub(super) fn one(&self, address: &Address) -> anyhow::Result<Listing> {
        let name = without_secrets(&address.path);
        let name = name.rsplit('/').next().unwrap_or_default().to_string();
        if name.is_empty() {
            return Err(RunError::recipe(format!("{address} names no file")));
        }
        let answer = self.head(address)?;
        if !answer.status().is_success() {
            bail!("{address}: the server answered {}", answer.status());
        }
        let file = describe(name, address.clone(), answer.headers(), false)?;
        Ok(Listing {
            commit: file.etag.clone(),
            files: vec![file],
        })
    }

    /// Asks for a file from byte `start` on, wherever it lies.
    ///
    /// # Errors
    /// A server that is not there.
    pub(super) fn get(
        &self,
        address: &Address,
        start: Option<u64>,
    ) -> anyhow::Result<Response<Body>> {
        self.follow(address, true, |to| {
            let request = self.agent.get(to.text());
            match start {
                Some(start) => request.header("range", format!("bytes={start}-")),
                None => request,
            }
        })
    }

    /// Asks what a file is. The answer of a hub that points elsewhere is its own: it tells the hash.
    fn head(&self, address: &Address) -> anyhow::Result<Response<Body>> {
        let is_elsewhere = address.origin != self.endpoint.origin;
        self.follow(address, is_elsewhere, |to| self.agent.head(to.text()))
    }

    /// Sends the request that `make` makes for each address on the way; `leaves` says whether a redirect to another origin is
    /// followed.
    fn follow(
        &self,
        address: &Address,
        leaves: bool,
        make: impl Fn(&Address) -> RequestBuilder<WithoutBody>,
    ) -> anyhow::Result<Response<Body>> {
        let mut at = address.clone();
        for _ in 0..MOST_REDIRECTS {
            let request = match &self.token {
                Some(Token(token)) if at.origin == self.endpoint.origin => {
                    make(&at).header("authorization", format!("Bearer {token}"))
                }
                _ => make(&at),
            };
            let answer = request.call().map_err(|error| anyhow!("{at}: {error}"))?;
            let location = answer.headers().get("location");
            let (true, Some(location)) = (answer.status().is_redirection(), location) else {
                return Ok(answer);
            };
            let location = location.to_str();
            let location = location.map_err(|_| anyhow!("{at}: redirected to no address"))?;
            let next = at.redirected(location)?;
            if next.origin != at.origin && !leaves {
                return Ok(answer);
            }
            at = next;
        }
        bail!("{address}: redirected more than {MOST_REDIRECTS} times")
    }

    /// Says what a refusal means.
    fn check(&self, repo: &str, revision: &str, answer: &Response<Body>) -> anyhow::Result<()> {
        let status = answer.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let code = text(answer.headers(), "x-error-code").unwrap_or_default();
        let page = self.endpoint.join(&format!("/{repo}"));
        let token = match &self.token {
            Some(_) => "the token that is set is not enough",
            None => "no token is set (HF_TOKEN)",
        };
        Err(match (code, status) {
            ("GatedRepo", _) | (_, StatusCode::FORBIDDEN) => anyhow!(
                "`{repo}` is gated, and {token}: accept its conditions at {page} and set HF_TOKEN to a token of that account"
            ),
            ("RevisionNotFound", _) => {
                RunError::recipe(format!("`{repo}` has no revision `{revision}`; see {page}"))
            }
            ("EntryNotFound", _) => {
                anyhow!("`{repo}` lists a file that it does not have; see {page}")
            }
            ("RepoNotFound", _) | (_, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) => anyhow!(
                "there is no model `{repo}` at {}, or it is private and {token}; check the name",
                self.endpoint
            ),
            _ => anyhow!("{page}: the hub answered {status}; try again later"),
        })
    }
}

/// What a file is, by the headers of a `HEAD` answer.
fn describe(
    name: String,
    address: Address,
    headers: &HeaderMap,
    is_hub: bool,
) -> anyhow::Result<RemoteFile> {
    let either = |linked: &str, own: &str| text(headers, linked).or_else(|| text(headers, own));
    let etag = either("x-linked-etag", "etag").unwrap_or_default();
    let etag = etag.trim_start_matches("W/").trim_matches('"').to_string();
    // It names a file of the cache.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_:.=+".contains(c);
    if etag.is_empty() || !etag.chars().all(is_plain) || etag.starts_with('.') {
        bail!("{address}: the server gives no usable ETag, by which a download could be resumed");
    }
    let size = either("x-linked-size", "content-length").and_then(|size| size.parse().ok());
    let size = size.ok_or_else(|| anyhow!("{address}: the server does not say how large it is"))?;
    Ok(RemoteFile {
        name,
        address,
        size,
        digest: Digest::of_etag(&etag, is_hub),
        etag,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A path with everything escaped that could mean something else in an address.
fn escaped(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_show_no_secrets() {
        let address = Address::new("https://user:pass@Hub.example/a/b?sig=abc").unwrap();
        assert_eq!(address.to_string(), "https://hub.example/a/b");
        assert_eq!(
            address.redirected("/c?x=1").unwrap().text(),
            "https://user:pass@hub.example/c?x=1"
        );
        assert_eq!(
            address.redirected("http://cdn.example/f").unwrap().origin,
            "http://cdn.example"
        );
        for wrong in ["ftp://a/b", "hub.example", "https://", "//hub.example/a"] {
            assert!(Address::new(wrong).is_err(), "{wrong}");
        }
        assert_eq!(format!("{:?}", Token("hf_x".into())), "Token(hidden)");
        assert_eq!(escaped("a b/c#d.json"), "a%20b/c%23d.json");
    }
}
