//! A hub with one repository.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
}

/// How a hub with one repository, `owner/model`, behaves.
#[derive(Clone, Default)]
pub(super) struct Behaviour {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// The hash that the hub tells is another one.
    pub(super) wrong_hash: bool,
    /// Small files arrive with another first byte.
    pub(super) corrupt: bool,
    /// After so many bytes of a large file, once, the server says nothing more.
    pub(super) stall_after: Option<usize>,
    /// The server knows no ranges.
    pub(super) no_ranges: bool,
    /// What it answers instead: a status and an error code.
    pub(super) refusal: Option<(u16, &'static str)>,
}

pub(super) struct Hub {
    pub(super) port: u16,
    pub(super) requests: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    pub(super) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, behaviour) = (requests.clone(), Arc::new(Mutex::new(behaviour)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, behaviour) = (seen.clone(), behaviour.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream.unwrap(), port, &seen, &behaviour);
                });
            }
        });
        Self { port, requests }
    }

    /// The requests so far of this method whose path ends so.
    pub(super) fn requests(&self, method: &str, end: &str) -> Vec<Request> {
        let all = self.requests.lock().unwrap().clone();
        let is_one = |r: &Request| r.method == method && r.path.ends_with(end);
        all.into_iter().filter(is_one).collect()
    }
}

fn serve(
    stream: TcpStream,
    port: u16,
    seen: &Mutex<Vec<Request>>,
    behaviour: &Mutex<Behaviour>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_string);
        let mut request = Request {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            headers: BTreeMap::new(),
        };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let (name, value) = (name.to_ascii_lowercase(), value.trim().to_string());
            request.headers.insert(name, value);
        }
        seen.lock().unwrap().push(request.clone());
        let now = behaviour.lock().unwrap().clone();
        let end = answer(&mut stream, port, &request, &now)?;
        if end == End::Stalled {
            behaviour.lock().unwrap().stall_after = None;
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
    }
}

#[derive(PartialEq)]
enum End {
    Done,
    Stalled,
}

fn answer(
    stream: &mut TcpStream,
    port: u16,
    request: &Request,
    hub: &Behaviour,
) -> std::io::Result<End> {
    let mut head = |status: &str, headers: &[(&str, String)], length: usize| {
        let mut text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        stream.write_all((text + "\r\n").as_bytes())
    };
    if let Some((status, code)) = hub.refusal {
        head(&format!("{status} No"), &[("x-error-code", code.into())], 0)?;
        return Ok(End::Done);
    }
    if request
        .path
        .starts_with("/api/models/owner/model/revision/main")
    {
        let siblings: Vec<_> = hub
            .files
            .keys()
            .map(|name| json!({ "rfilename": name }))
            .collect();
        let body = json!({ "id": "owner/model", "sha": COMMIT, "siblings": siblings }).to_string();
        head("200 OK", &[], body.len())?;
        stream.write_all(body.as_bytes())?;
        return Ok(End::Done);
    }
    // Large files lie elsewhere: on another host, which must not see the token.
    let on_hub = format!("/owner/model/resolve/{COMMIT}/");
    let path = request.path.split('?').next().unwrap_or_default();
    let (name, is_storage) = match path.strip_prefix(&on_hub) {
        Some(name) => (name, false),
        None => (path.strip_prefix("/storage/").unwrap_or("?"), true),
    };
    let Some(content) = hub.files.get(name) else {
        head(
            "404 Not Found",
            &[("x-error-code", "EntryNotFound".into())],
            0,
        )?;
        return Ok(End::Done);
    };
    let is_large = name.ends_with(".safetensors");
    if is_large && !is_storage {
        let told = if hub.wrong_hash {
            sha256(b"other")
        } else {
            sha256(content)
        };
        let headers = [
            ("x-repo-commit", COMMIT.to_string()),
            ("x-linked-etag", format!("\"{told}\"")),
            ("x-linked-size", content.len().to_string()),
            (
                "location",
                format!("http://localhost:{port}/storage/{name}?signature=x"),
            ),
        ];
        head("302 Found", &headers, 0)?;
        return Ok(End::Done);
    }
    let etag = ("etag", format!("\"{}\"", git_blob(content)));
    let mut content = content.clone();
    if hub.corrupt && !is_large {
        content[0] ^= 1;
    }
    let start: usize = match request.headers.get("range") {
        Some(range) if !hub.no_ranges => range
            .trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .unwrap(),
        _ => 0,
    };
    let rest = &content[start..];
    if start > 0 {
        let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
        head(
            "206 Partial Content",
            &[etag, ("content-range", range)],
            rest.len(),
        )?;
    } else {
        head("200 OK", &[etag], rest.len())?;
    }
    if request.method == "HEAD" {
        return Ok(End::Done);
    }
    match hub.stall_after.filter(|_| is_large) {
        Some(after) => {
            stream.write_all(&rest[..after])?;
            stream.flush()?;
            Ok(End::Stalled)
        }
        None => {
            stream.write_all(rest)?;
            Ok(End::Done)
        }
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

pub(super) fn git_blob(bytes: &[u8]) -> String {
    use sha1::Digest;
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A hub's files: some that are fetched, some that are not.
pub(super) fn model() -> Behaviour {
    let large: Vec<u8> = (0..300_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let files = [
        ("README.md", b"# no".to_vec()),
        ("config.json", b"{\"model_type\": \"llama\"}".to_vec()),
        ("model.safetensors", large),
        ("pytorch_model.bin", vec![1; 100]),
        ("tokenizer.json", b"{}".to_vec()),
    ];
    Behaviour {
        files: files.map(|(name, bytes)| (name.to_string(), bytes)).into(),
        ..Behaviour::default()
    }
}
