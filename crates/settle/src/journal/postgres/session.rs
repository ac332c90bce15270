//! One connection: its URL, its encryption, and what holds on it.

use std::{collections::HashMap, error::Error as _, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::sync::Mutex;
use tokio_postgres::{
    Client, Config, Row, Statement,
    config::{Host, SslMode, TargetSessionAttrs},
    error::SqlState,
    types::ToSql,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

/// Bound on connecting, and on every statement.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What holds on every session. A server that is told nothing notices a client that vanished from the
/// network after hours, and its lock and its row locks would live as long.
const SETTINGS: &str = "
    set synchronous_commit = on;
    set default_transaction_isolation = 'read committed';
    set client_min_messages = warning;
    set statement_timeout = '10s';
    set lock_timeout = '5s';
    set idle_in_transaction_session_timeout = '15s';
    set tcp_keepalives_idle = 5;
    set tcp_keepalives_interval = 2;
    set tcp_keepalives_count = 3;
    set tcp_user_timeout = 10000";

/// Why the database did not do it. No variant holds the URL, which is a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("not connected")]
    NotConnected,
    #[error("no answer in time")]
    TimedOut,
    #[error("{}", told(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error("a row cannot be read: {0}")]
    Row(#[from] serde_json::Error),
    #[error("another session still holds this process's lock")]
    Locked,
    #[error("it changes faster than it can be written")]
    Contended,
    #[error("its format is {found}, this obol knows format {known}; use the version of obol that wrote it, or a newer one")]
    Format { found: i64, known: i64 },
}

/// The server's words, or the causes one after the other: the library's own text says little.
fn told(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({})", error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl DatabaseError {
    /// Whether trying again is of no use before somebody has changed something.
    pub fn is_final(&self) -> bool {
        const FINAL: [SqlState; 4] = [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ];
        match self {
            Self::Format { .. } => true,
            Self::Postgres(error) => error.code().is_some_and(|code| FINAL.contains(code)) || is_impostor(error),
            _ => false,
        }
    }
}

/// Whether the server's certificate is not one for it.
fn is_impostor(error: &tokio_postgres::Error) -> bool {
    let handshake = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let cause = handshake.and_then(|error| error.get_ref()).and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

/// How the database is reached.
pub(super) struct Access {
    config: Config,
    tls: MakeRustlsConnect,
}

impl Access {
    /// Reads `postgres://user:password@host/database?…`. Without `sslmode` the connection is
    /// encrypted, and the server's certificate checked, unless the server is on this machine;
    /// `sslrootcert` names a file of authorities to be trusted beside the public ones.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        if !base.starts_with("postgres://") && !base.starts_with("postgresql://") {
            return Err("it does not begin with postgres://".to_owned());
        }
        let (mut kept, mut mode, mut authorities) = (Vec::new(), None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", word)) => mode = Some(word),
                Some(("sslrootcert", file)) => authorities = Some(file.replace("%2F", "/").replace("%2f", "/")),
                _ => kept.push(pair),
            }
        }
        let rest = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
        // What the library says of a bad URL may repeat a part of it.
        let mut config: Config = format!("{base}{rest}").parse().map_err(|_| "it is no URL of a PostgreSQL database".to_owned())?;
        let local = !config.get_hosts().is_empty() && config.get_hosts().iter().all(is_local);
        config.ssl_mode(match mode {
            None if local => SslMode::Disable,
            None | Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            Some("prefer") => SslMode::Prefer,
            Some("disable") => SslMode::Disable,
            Some(_) => return Err("its sslmode is none of disable, prefer, require, verify-full".to_owned()),
        });
        config
            .application_name("obol")
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(PATIENCE)
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        Ok(Self { config, tls: tls(authorities.as_deref())? })
    }

    /// A session, ready for statements.
    pub async fn connect(&self) -> Result<Session, DatabaseError> {
        let connecting = async {
            let (client, connection) = self.config.connect(self.tls.clone()).await?;
            let driver = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = told(&error), "a connection to the database ended");
                }
            });
            let session = Session { client, statements: Mutex::default(), _driver: AbortOnDropHandle::new(driver) };
            session.client.batch_execute(SETTINGS).await?;
            Ok(session)
        };
        tokio::time::timeout(PATIENCE, connecting).await.unwrap_or(Err(DatabaseError::TimedOut))
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

fn tls(authorities: Option<&str>) -> Result<MakeRustlsConnect, String> {
    let mut roots = crate::http::roots();
    if let Some(file) = authorities {
        let broken = |cause: String| format!("its sslrootcert {file}: {cause}");
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| broken(error.to_string()))? {
            let certificate = certificate.map_err(|error| broken(error.to_string()))?;
            roots.add(certificate).map_err(|error| broken(error.to_string()))?;
        }
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// One connection. Dropped, it is closed, and the server undoes what was not committed.
pub(super) struct Session {
    pub client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
    _driver: AbortOnDropHandle<()>,
}

/// Parameters of a statement.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Session {
    /// Rows of a statement, which is prepared once.
    pub async fn query(&self, sql: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>, DatabaseError> {
        let asked = async { Ok(self.client.query(&self.statement(sql).await?, parameters).await?) };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(DatabaseError::TimedOut))
    }

    /// The one row of a statement that always has one.
    pub async fn query_one(&self, sql: &'static str, parameters: Parameters<'_>) -> Result<Row, DatabaseError> {
        let asked = async { Ok(self.client.query_one(&self.statement(sql).await?, parameters).await?) };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(DatabaseError::TimedOut))
    }

    /// How many rows a statement changed.
    pub async fn execute(&self, sql: &'static str, parameters: Parameters<'_>) -> Result<u64, DatabaseError> {
        let asked = async { Ok(self.client.execute(&self.statement(sql).await?, parameters).await?) };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(DatabaseError::TimedOut))
    }

    /// Statements without parameters or rows.
    pub async fn run(&self, sql: &str) -> Result<(), DatabaseError> {
        let asked = async { Ok(self.client.batch_execute(sql).await?) };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(DatabaseError::TimedOut))
    }

    async fn statement(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let mut statements = self.statements.lock().await;
        if let Some(statement) = statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> SslMode {
        Access::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")).config.get_ssl_mode()
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_unless_told_otherwise() {
        for local in
            ["postgres://u@localhost/d", "postgres://u@127.0.0.1:5433/d", "postgresql:///d?host=/run/pg", "postgres://%2Frun%2Fpg/d"]
        {
            assert_eq!(mode(local), SslMode::Disable, "{local}");
        }
        for remote in ["postgres://u:p@db.example/d", "postgres://u@127.0.0.1,db.example/d", "postgres://u@h/d?sslmode=verify-full"] {
            assert_eq!(mode(remote), SslMode::Require, "{remote}");
        }
        assert_eq!(mode("postgres://u@db.example/d?sslmode=disable"), SslMode::Disable);
    }

    #[test]
    fn a_bad_url_is_not_repeated() {
        for bad in ["hunter2", "mysql://u:hunter2@h/d", "postgres://u:hunter2@h:port/d", "postgres://u:hunter2@h/d?sslmode=hunter2"] {
            let error = Access::parse(bad).err().unwrap_or_else(|| panic!("{bad} is taken"));
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(Access::parse("postgres://u@h/d?sslrootcert=/no/such/file").is_err_and(|error| error.contains("/no/such/file")));
    }
}
