//! `limbic fetch` against a server that speaks the hub's routes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::workplace::Said;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secretSECRETsecret";

/// A request as the server saw it.
#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

/// How a hub with one repository, `owner/model`, behaves.
#[derive(Clone, Default)]
struct Behaviour {
    files: BTreeMap<String, Vec<u8>>,
    /// The hash that the hub tells is another one.
    wrong_hash: bool,
    /// Small files arrive with another first byte.
    corrupt: bool,
    /// After so many bytes of a large file, once, the server says nothing more.
    stall_after: Option<usize>,
    /// The server knows no ranges.
    no_ranges: bool,
    /// What it answers instead: a status and an error code.
    refusal: Option<(u16, &'static str)>,
}

struct Hub {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    fn start(behaviour: Behaviour) -> Self {
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
    fn requests(&self, method: &str, end: &str) -> Vec<Request> {
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

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn git_blob(bytes: &[u8]) -> String {
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
fn model() -> Behaviour {
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

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, hub: &Hub, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbic"));
        for proxy in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        for variable in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"] {
            command.env_remove(variable);
        }
        command
            .arg("fetch")
            .args(arguments)
            .env("HF_ENDPOINT", format!("http://127.0.0.1:{}", hub.port))
            .env("HF_HOME", self.path("home"))
            .env("HF_TOKEN", TOKEN)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs it; whatever it says, the token is not in it.
    fn run(&self, hub: &Hub, arguments: &[&str]) -> Said {
        let said = Said::new(self.command(hub, arguments).output().unwrap());
        let all = format!("{}{}", said.stdout, said.stderr);
        assert!(!all.contains(TOKEN) && !all.contains("signature"), "{all}");
        said
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn partial(&self) -> PathBuf {
        let hash = sha256(&model().files["model.safetensors"]);
        self.path(&format!(
            "home/hub/models--owner--model/blobs/{hash}.incomplete"
        ))
    }
}

#[test]
fn a_model_becomes_a_folder_and_stays_in_the_cache() {
    let (hub, place) = (Hub::start(model()), Place::new());
    let said = place.run(&hub, &["owner/model"]).succeeded();
    assert!(
        said.stdout.starts_with("weights/model\n"),
        "{}",
        said.stdout
    );
    let wanted = ["config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(place.names("weights/model"), wanted);
    assert_eq!(place.names("weights"), ["model"]);
    let got = std::fs::read(place.path("weights/model/model.safetensors")).unwrap();
    assert_eq!(got, model().files["model.safetensors"]);

    // The hub sees the token, the storage that it points to does not.
    let bearer = format!("Bearer {TOKEN}");
    let api = hub.requests("GET", "/revision/main");
    assert_eq!(api[0].headers.get("authorization"), Some(&bearer));
    let storage = hub.requests("GET", "signature=x");
    assert_eq!(storage.len(), 1);
    assert_eq!(storage[0].headers.get("authorization"), None, "{storage:?}");

    // Again: nothing is downloaded, and the folder is left as it is.
    let before = hub.requests("GET", ".safetensors").len();
    let said = place.run(&hub, &["owner/model"]).succeeded();
    assert!(said.stderr.contains("there already"), "{}", said.stderr);
    assert_eq!(hub.requests("GET", ".safetensors").len(), before);

    // A folder in the way is not touched.
    std::fs::write(place.path("weights/model/mine.txt"), "mine").unwrap();
    place
        .run(&hub, &["owner/model"])
        .failed(2, &["weights/model", "--to"]);

    // Without the network, from the cache.
    let requests = hub.requests.lock().unwrap().len();
    let arguments = ["owner/model", "--offline", "--to", "off/line"];
    place.run(&hub, &arguments).succeeded();
    assert_eq!(place.names("off/line"), wanted);
    let mut by_variable = place.command(&hub, &["owner/model", "--to", "third"]);
    Said::new(by_variable.env("HF_HUB_OFFLINE", "1").output().unwrap()).succeeded();
    assert_eq!(place.names("third"), wanted);
    assert_eq!(hub.requests.lock().unwrap().len(), requests);
    place
        .run(&hub, &["owner/other", "--offline"])
        .failed(2, &["owner/other", "not in the cache"]);
}

#[test]
fn killed_halfway_it_goes_on_from_there() {
    let behaviour = Behaviour {
        stall_after: Some(200_000),
        ..model()
    };
    let (hub, place) = (Hub::start(behaviour), Place::new());
    let mut child = place
        .command(&hub, &["owner/model"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    let begun = Instant::now();
    while length(&place.partial()) < 200_000 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing came");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.path("weights").exists(), "no folder of half a model");

    place.run(&hub, &["owner/model"]).succeeded();
    let got = std::fs::read(place.path("weights/model/model.safetensors")).unwrap();
    assert_eq!(got, model().files["model.safetensors"]);
    let requests = hub.requests("GET", "/storage/model.safetensors?signature=x");
    let ranges: Vec<_> = requests
        .iter()
        .map(|r| r.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, [None, Some("bytes=200000-".to_string())]);
}

#[test]
fn a_server_without_ranges_sends_all_of_it_again() {
    let behaviour = Behaviour {
        no_ranges: true,
        ..model()
    };
    let (hub, place) = (Hub::start(behaviour), Place::new());
    std::fs::create_dir_all(place.partial().parent().unwrap()).unwrap();
    std::fs::write(place.partial(), "the beginning of something else").unwrap();
    place.run(&hub, &["owner/model"]).succeeded();
    let got = std::fs::read(place.path("weights/model/model.safetensors")).unwrap();
    assert_eq!(got, model().files["model.safetensors"]);
}

#[test]
fn a_wrong_hash_is_refused_and_removed() {
    // The server itself tells another hash; and what an earlier attempt left is damaged.
    let wrong = Behaviour {
        wrong_hash: true,
        ..model()
    };
    let (hub, place) = (Hub::start(wrong), Place::new());
    let parts = ["model.safetensors", "SHA-256", "removed"];
    place.run(&hub, &["owner/model"]).failed(1, &parts);
    assert!(!place.path("weights").exists());
    let (hub, place) = (Hub::start(model()), Place::new());
    std::fs::create_dir_all(place.partial().parent().unwrap()).unwrap();
    std::fs::write(place.partial(), [9; 1000]).unwrap();
    place.run(&hub, &["owner/model"]).failed(1, &parts);
    assert!(!place.partial().exists());
    place.run(&hub, &["owner/model"]).succeeded();
}

#[test]
fn another_revision_of_equal_sizes_is_not_the_same() {
    let (hub, place) = (Hub::start(model()), Place::new());
    place.run(&hub, &["owner/model"]).succeeded();
    let mut other = model();
    other.files.get_mut("model.safetensors").unwrap()[299_999] ^= 1;
    let other = Hub::start(other);
    place
        .run(&other, &["owner/model"])
        .failed(2, &["weights/model", "something else", "--to"]);
    let got = std::fs::read(place.path("weights/model/model.safetensors")).unwrap();
    assert_eq!(got, model().files["model.safetensors"]);
}

#[test]
fn small_files_are_checked_too() {
    let corrupt = Behaviour {
        corrupt: true,
        ..model()
    };
    let (hub, place) = (Hub::start(corrupt), Place::new());
    place
        .run(&hub, &["owner/model"])
        .failed(1, &["config.json", "git SHA-1", "removed"]);
    assert!(!place.path("weights").exists());
}

#[test]
fn what_is_edited_does_not_change_the_cache() {
    let (hub, place) = (Hub::start(model()), Place::new());
    place.run(&hub, &["owner/model"]).succeeded();
    let write = |path: &Path| {
        let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all(b"[").unwrap();
    };
    let read = |path: &str| std::fs::read(place.path(path)).unwrap();
    write(&place.path("weights/model/config.json"));
    place
        .run(&hub, &["owner/model", "--to", "second"])
        .succeeded();
    assert_eq!(read("second/config.json"), model().files["config.json"]);

    // What is changed in the cache itself is found out, and fetched again.
    let blobs = "home/hub/models--owner--model/blobs";
    let blob = format!("{blobs}/{}", git_blob(&model().files["config.json"]));
    write(&place.path(&blob));
    place
        .run(&hub, &["owner/model", "--offline", "--to", "third"])
        .failed(2, &["`config.json`", "git SHA-1"]);
    place
        .run(&hub, &["owner/model", "--to", "third"])
        .succeeded();
    assert_eq!(read("third/config.json"), model().files["config.json"]);
}

#[test]
fn refusals_say_what_to_do() {
    let refused = |status, code| {
        Hub::start(Behaviour {
            refusal: Some((status, code)),
            ..model()
        })
    };
    let place = Place::new();
    place
        .run(&refused(401, "RepoNotFound"), &["owner/model"])
        .failed(
            1,
            &[
                "there is no model `owner/model`",
                "the token that is set is not enough",
            ],
        );
    place
        .run(&refused(403, "GatedRepo"), &["owner/model"])
        .failed(
            1,
            &[
                "gated",
                "accept its conditions at http://127.0.0.1:",
                "/owner/model",
            ],
        );
    place
        .run(
            &refused(404, "RevisionNotFound"),
            &["owner/model", "--revision", "v9"],
        )
        .failed(2, &["no revision `v9`"]);
    place
        .run(&refused(503, ""), &["owner/model"])
        .failed(1, &["503"]);
    let hub = Hub::start(model());
    place
        .run(&hub, &["owner/model", "--include", "*.gguf"])
        .failed(2, &["owner/model", "*.gguf"]);
    place
        .run(&hub, &["clip-vit-large-patch41"])
        .failed(2, &["did you mean `clip-vit-large-patch14`?"]);
    let mut nowhere = place.command(&hub, &["owner/model"]);
    nowhere.env("HF_ENDPOINT", "http://user:password@127.0.0.1:9");
    let said = Said::new(nowhere.output().unwrap()).failed(1, &["127.0.0.1:9"]);
    assert!(!said.stderr.contains("password"), "{}", said.stderr);
}

#[test]
fn patterns_choose_and_an_address_is_a_model_too() {
    let (hub, place) = (Hub::start(model()), Place::new());
    let arguments = [
        "owner/model",
        "--include",
        "*.bin",
        "--include",
        "READ*",
        "--to",
        "some",
    ];
    place.run(&hub, &arguments).succeeded();
    assert_eq!(place.names("some"), ["README.md", "pytorch_model.bin"]);

    let address = format!("http://localhost:{}/storage/pytorch_model.bin", hub.port);
    place.run(&hub, &[&address]).succeeded();
    assert_eq!(place.names("weights"), ["pytorch_model.bin"]);
    let got = std::fs::read(place.path("weights/pytorch_model.bin")).unwrap();
    assert_eq!(got, model().files["pytorch_model.bin"]);
    let sent = hub.requests("GET", "/storage/pytorch_model.bin");
    assert_eq!(sent[0].headers.get("authorization"), None);
    place
        .run(&hub, &[&address, "--offline", "--to", "again.bin"])
        .succeeded();
    assert_eq!(std::fs::read(place.path("again.bin")).unwrap(), got);
    let said = place.run(&hub, &[&address]).succeeded();
    assert!(said.stderr.contains("there already"), "{}", said.stderr);
    std::fs::write(place.path("again.bin"), "mine").unwrap();
    place
        .run(&hub, &[&address, "--to", "again.bin"])
        .failed(2, &["again.bin", "--to"]);
}
