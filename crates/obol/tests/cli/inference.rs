//! `obol sell inference`: what is found, what is chosen, and what is said when there is nothing to choose from.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use crate::{
    golden,
    support::{Run, Stack},
    terminal::{DOWN, ENTER, ESCAPE, Terminal},
};

/// A model server that lists models; an Ollama also fetches them.
struct Server {
    url: String,
}

/// Says what an Ollama tells of a pull, line by line, and ends it when dropped.
type Pull = mpsc::Sender<&'static str>;

impl Server {
    fn with(models: &[&str]) -> Self {
        Self::start(models, None)
    }

    fn ollama(models: &[&str]) -> (Self, Pull) {
        let (pull, lines) = mpsc::channel();
        (Self::start(models, Some(lines)), pull)
    }

    fn start(models: &[&str], pull: Option<mpsc::Receiver<&'static str>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let models = Arc::new(Mutex::new(models.iter().map(ToString::to_string).collect()));
        let pull = pull.map(|lines| Arc::new(Mutex::new(lines)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (models, pull) = (Arc::clone(&models), pull.clone());
                // A client that leaves is none of our business.
                thread::spawn(move || _ = answer(stream, &models, pull.as_deref()));
            }
        });
        Self { url }
    }
}

fn answer(mut stream: TcpStream, models: &Mutex<Vec<String>>, pull: Option<&Mutex<mpsc::Receiver<&str>>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    while reader.read_line(&mut head)? > 2 {
        let last = head.lines().last().unwrap_or_default().to_lowercase();
        length = last.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut say = |status: &str, body: &str| write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\n\r\n{body}");
    match (head.split(' ').nth(1).unwrap_or_default(), pull) {
        ("/v1/models", _) => {
            let list: Vec<_> = models.lock().unwrap().iter().map(|id| serde_json::json!({ "id": id })).collect();
            say("200 OK", &serde_json::json!({ "data": list }).to_string())
        }
        ("/api/version", Some(_)) => say("200 OK", r#"{"version":"0.9.0"}"#),
        ("/api/pull", Some(lines)) => {
            say("200 OK", "")?;
            for line in lines.lock().unwrap().iter() {
                stream.write_all(line.as_bytes())?;
            }
            let asked: serde_json::Value = serde_json::from_slice(&body)?;
            models.lock().unwrap().push(asked["model"].as_str().unwrap_or_default().to_owned());
            Ok(())
        }
        _ => say("404 Not Found", ""),
    }
}

/// `sell inference chat --per-mtok 1 …` where only these servers are looked for.
struct Seller {
    stack: Stack,
    servers: Vec<Server>,
}

const CHAT: [&str; 5] = ["sell", "inference", "chat", "--per-mtok", "1"];

impl Seller {
    fn with(servers: Vec<Server>) -> Self {
        Self { stack: Stack::new(), servers }
    }

    fn places(&self) -> String {
        self.servers.iter().map(|server| server.url.as_str()).collect::<Vec<_>>().join(",")
    }

    fn run(&self, more: &[&str]) -> Run {
        self.stack.run_with(&[&CHAT, more].concat(), |command| _ = command.env("OBOL_MODEL_SERVERS", self.places()))
    }

    fn at_terminal(&self, more: &[&str]) -> Terminal {
        let mut command = self.stack.command(&[&CHAT, more].concat());
        command.env("OBOL_MODEL_SERVERS", self.places());
        Terminal::run(command)
    }

    /// Ports are other ones each time.
    fn stable(&self, text: &str) -> String {
        let mut text = self.stack.stable(text);
        for (index, server) in self.servers.iter().enumerate() {
            let port = server.url.rsplit(':').next().unwrap();
            text =
                text.replace(&format!("127.0.0.1:{port}"), &format!("[SERVER{index}]")).replace(&format!("port: {port}"), "port: [PORT]");
        }
        text
    }

    fn file(&self) -> Option<String> {
        fs::read_to_string(self.stack.path("config/applications/sell-inference/chat/values-offer.yaml")).ok()
    }

    /// Each command with what it said; what it wrote is taken away again.
    fn shown(&self, commands: &[&[&str]]) -> String {
        let mut text = String::new();
        for more in commands {
            let run = self.run(more);
            writeln!(text, "$ obol {}\n{}", [&CHAT, *more].concat().join(" "), run.shown()).unwrap();
            if let Some(file) = self.file() {
                writeln!(text, "--- values-offer.yaml\n{file}").unwrap();
                fs::remove_dir_all(self.stack.path("config/applications")).unwrap();
            }
        }
        self.stable(&text)
    }
}

#[test]
fn one_server_with_one_model() {
    let seller = Seller::with(vec![Server::with(&["llama3"])]);
    let dry: &[&str] = &["--model", "llama3", "--dry-run"];
    golden!("inference-one", seller.shown(&[&["--model", "llama3"], dry, &[], &["--model", "other"], &["-o", "json"]]));
}

#[test]
fn several_models_where_nobody_can_be_asked() {
    let seller = Seller::with(vec![Server::with(&["llama3:latest", "qwen3"]), Server::with(&["llama3:latest"])]);
    golden!(
        "inference-several",
        seller.shown(&[&[], &["-o", "json"], &["--model", "llama3"], &["--model", "qwen3"], &["--model", "none"]])
    );
}

#[test]
fn no_server_and_no_model() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let seller = Seller::with(vec![Server { url: url.clone() }, Server::with(&[])]);
    golden!(
        "inference-none",
        seller.shown(&[&[], &["--model", "llama3"], &["--upstream", &url], &["-o", "json"]]).replace(&url, "http://[SERVER0]")
    );
    assert_eq!(seller.file(), None);
}

#[test]
fn a_person_chooses_among_what_is_found() {
    let seller = Seller::with(vec![Server::with(&["llama3", "qwen3"]), Server::with(&["mistral"])]);
    let mut terminal = seller.at_terminal(&[]);
    terminal.wait_for("mistral");
    terminal.press(DOWN);
    terminal.wait_for("> qwen3");
    terminal.press(ENTER);
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    let file = seller.file().unwrap();
    assert!(file.contains("name: qwen3"), "{file}");
    golden!("inference-chosen", seller.stable(&format!("{shown}--- values-offer.yaml\n{file}")));

    fs::remove_dir_all(seller.stack.path("config/applications")).unwrap();
    let mut terminal = seller.at_terminal(&[]);
    terminal.wait_for("mistral");
    terminal.press(ESCAPE);
    let (code, shown) = terminal.end();
    assert_eq!((code, seller.file()), (1, None), "{shown}");
    golden!("inference-not-chosen", seller.stable(&shown));
}

#[test]
fn a_model_that_is_missing_is_fetched_before_ones_eyes() {
    let (server, pull) = Server::ollama(&["other"]);
    let seller = Seller { stack: Stack::on("obol-sandbox"), servers: vec![server] };
    let _node = seller.stack.up();
    let upstream = seller.servers[0].url.clone();
    let model = ["--model", "llama3", "--upstream", &upstream];
    seller.run(&model);
    let status = || seller.stack.ok(&["sell", "status", "chat"]).stdout;
    crate::support::wait("it is missed", || status().contains("Missing"));
    assert!(status().contains("the model server does not have `llama3`; it has other"), "{}", status());

    let terminal = seller.at_terminal(&[&model[..], &["--pull"]].concat());
    for (line, told) in [
        ("{\"status\":\"pulling a\",\"digest\":\"a\",\"total\":104857600,\"completed\":1048576}\n", "1 of 100 MiB"),
        ("{\"status\":\"pulling a\",\"digest\":\"a\",\"total\":104857600,\"completed\":52428800}\n", "50 of 100 MiB"),
    ] {
        pull.send(line).unwrap();
        terminal.wait_for(told);
    }
    assert!(status().contains("50 of 100 MiB"), "{}", status());
    pull.send("{\"status\":\"success\"}\n").unwrap();
    drop(pull);
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    let progress = shown.split_once('\r').map(|(_, progress)| progress.replace('\r', "\n"));
    golden!("inference-pull", seller.stable(&progress.unwrap_or(shown)));
    // Who does not watch at a terminal hears the same, and what is there is not fetched again.
    let again = seller.run(&[&model[..], &["--pull"]].concat());
    assert!(again.code == 0 && again.stderr.contains("the model server has the model"), "{}", again.stderr);
}
