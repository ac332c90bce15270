//! Model servers that we did not write: llama.cpp's own, and the LiteLLM proxy before it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{http, part, process::Process, stack::free_address};

/// Name of the model with random weights.
pub const MODEL: &str = "tiny";
/// Key of LiteLLM, which starts with none no more.
pub const LITELLM_KEY: &str = "sk-0123456789abcdef0123456789abcdef0123456789abcdef";
/// LiteLLM imports the half of PyPI before it listens.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running model server.
#[derive(Debug)]
pub struct ModelServer {
    /// Base URL, without `/v1`.
    pub url: String,
    _process: Process,
    _folder: Option<TempDir>,
}

impl ModelServer {
    /// llama.cpp's server with the model that `tiny_model.py` makes.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn llama() -> Self {
        Self::llama_with(&[]).await
    }

    /// The same, for those who show a key.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn llama_with_key(key: &str) -> Self {
        Self::llama_with(&["--api-key", key]).await
    }

    async fn llama_with(more: &[&str]) -> Self {
        let at = free_address();
        let mut command = Command::new(part("llama/llama-server"));
        command.arg("-m").arg(part("llama/tiny.gguf")).args(["--alias", MODEL, "--host", "127.0.0.1", "--port", &at.port().to_string()]);
        // A model of random weights would now and then end its answer before it is told to.
        command.arg("--ignore-eos");
        // Four at once, with 512 tokens each; one thread, for two cores have more to do.
        command.args(["-np", "4", "-c", "2048", "-t", "1", "--jinja", "--no-warmup", "--embeddings", "--pooling", "mean"]).args(more);
        Self::ready("llama-server", command, at, "/health", None).await
    }

    /// LiteLLM's proxy, with the model of `behind`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn litellm(behind: &Self) -> Self {
        let at = free_address();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config: PathBuf = folder.path().join("config.yaml");
        let text = format!(
            "model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n      api_base: {}/v1\n      api_key: none\n",
            behind.url
        );
        fs_err::write(&config, text).expect("a file");
        let mut command = Command::new(part("python-litellm/bin/litellm"));
        command.arg("--config").arg(&config).args(["--host", "127.0.0.1", "--port", &at.port().to_string(), "--telemetry", "False"]);
        command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("NO_DOCS", "True").env("LITELLM_MASTER_KEY", LITELLM_KEY);
        Self::ready("litellm", command, at, "/health/liveliness", Some(folder)).await
    }

    async fn ready(name: &str, mut command: Command, at: SocketAddr, health: &str, folder: Option<TempDir>) -> Self {
        let server = Self { url: format!("http://{at}"), _process: Process::start(name, &mut command), _folder: folder };
        let (client, start) = (http(), Instant::now());
        while !client.get(format!("{}{health}", server.url)).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(start.elapsed() < PATIENCE, "{name} did not get ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        server
    }
}
