//! `limbic fetch` against a server that speaks the hub's routes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::workplace::Said;

mod hub;

use hub::{Behaviour, Hub, git_blob, model, sha256};

const TOKEN: &str = "hf_secretSECRETsecret";

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
