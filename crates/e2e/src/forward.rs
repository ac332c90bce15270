//! Loopback servers for Pods: a second address of the same server.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::cluster::MACHINE;

/// A loopback server that Pods reach too, as long as this lives.
#[derive(Debug)]
pub struct Forward {
    /// The server's URL as Pods and this machine know it.
    pub url: String,
    forwarding: JoinHandle<()>,
}

impl Forward {
    /// Lets Pods reach the server at `url`, which is `http://127.0.0.1:PORT`. The cluster must be up.
    ///
    /// # Panics
    /// When there is no port, or the cluster is down.
    pub async fn to(url: &str) -> Self {
        let server: SocketAddr = url.trim_start_matches("http://").trim_end_matches('/').parse().expect("a loopback address");
        let listener = TcpListener::bind((MACHINE.as_str(), 0)).await.expect("the machine's end of the cable is up");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let forwarding = tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(server).await {
                        let _ = copy_bidirectional(&mut here, &mut there).await;
                    }
                });
            }
        });
        Self { url, forwarding }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}
