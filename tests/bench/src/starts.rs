//! Cold starts: from exec to the first request for work, compared with a function that does nothing; then to the end of
//! the first TLS handshake.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Trouble;
use crate::process::Process;
use crate::stage::Stage;

/// Starts of each of the two functions, in sequence.
const STARTS: usize = 60;
/// First handshakes.
const HANDSHAKES: usize = 20;

/// Medians.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Starts {
    /// The function: from exec to its first ask for work.
    pub(crate) function: Duration,
    /// The CPU time of that.
    pub(crate) function_cpu: Duration,
    /// The function that does nothing.
    pub(crate) idle: Duration,
    /// The CPU time of that.
    pub(crate) idle_cpu: Duration,
    /// CPU time from exec to the end of the first TLS handshake, with what a sync does before it.
    pub(crate) to_handshake_cpu: Duration,
}

/// Starts both by turns, many times.
pub(crate) async fn measure(stage: &Stage, binary: &Path, idle: &Path) -> Result<Starts, Trouble> {
    let mut samples: [Vec<Duration>; 5] = Default::default();
    let [function, function_cpu, nothing, nothing_cpu, to_handshake] = &mut samples;
    for _ in 0..STARTS {
        let (time, cpu) = start(stage.function(binary, &BTreeMap::new()).await?).await?;
        function.push(time);
        function_cpu.push(cpu);
        let (time, cpu) = start(stage.function(idle, &BTreeMap::new()).await?).await?;
        nothing.push(time);
        nothing_cpu.push(cpu);
    }
    let refused = Refused::listen().await?;
    for _ in 0..HANDSHAKES {
        to_handshake.push(refused.handshake(stage, binary).await?);
    }
    let [function, function_cpu, idle, idle_cpu, to_handshake_cpu] = samples.map(median);
    Ok(Starts {
        function,
        function_cpu,
        idle,
        idle_cpu,
        to_handshake_cpu,
    })
}

async fn start(process: Process) -> Result<(Duration, Duration), Trouble> {
    let time = process.ready().await?;
    let cpu = process.cpu()?;
    process.end();
    Ok((time, cpu))
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

/// A TLS server in Falcon's place with an untrusted certificate. The function rejects it at the end of the handshake, after
/// all of its cost.
struct Refused {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Refused {
    async fn listen() -> Result<Self, Trouble> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        Ok(Self {
            listener: TcpListener::bind("127.0.0.1:0").await?,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// The CPU time of a process up to the end of its first handshake.
    async fn handshake(&self, stage: &Stage, binary: &Path) -> Result<Duration, Trouble> {
        let cloud = format!("us-1=https://{}", self.listener.local_addr()?);
        let others = BTreeMap::from([("FALCON_CLOUDS_EXTRA", cloud)]);
        let process = stage.function(binary, &others).await?;
        process.ready().await?;
        // A dry run takes no lease, which a killed process would leave behind.
        let dry_run = json!({"command": "sync", "integration": "corp", "dryRun": true});
        process.hand_out("bench-handshake", &dry_run);
        let (tcp, _) = self.listener.accept().await?;
        let accepted = self.acceptor.accept(tcp).await;
        let cpu = process.cpu()?;
        process.end();
        if accepted.is_ok() {
            return Err("the function trusts a certificate that nobody vouches for".into());
        }
        Ok(cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one_counts() {
        let samples = [5, 1, 900, 3, 2].map(Duration::from_millis).to_vec();
        assert_eq!(median(samples), Duration::from_millis(3));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }
}
