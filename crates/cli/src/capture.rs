//! `ieum capture`: sets the rules that send a workload's traffic through its sidecar, in the network namespace it stands
//! in. What the rules are is `capture`'s.

use capture::rules::{DNS_PORT, INBOUND_PORT, OUTBOUND_PORT};
use capture::{Own, Rules};
use clap::Args;
use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;

/// Send the traffic of this network namespace through the sidecar in it.
///
/// Sets nftables rules, all at once; running it again replaces them. Connections out of the workload go to the sidecar's
/// port 15001, those to it to 15006, questions to name servers to 15053; where they were meant to go is kept. Needs `nft`
/// and CAP_NET_ADMIN in the namespace. Exit code: 0 done, 1 refused, 2 usage.
#[derive(Args)]
#[command(after_help = "Examples:\n  ieum capture --print\n  \
        ieum capture --annotation traffic.sidecar.istio.io/excludeOutboundPorts=5432\n  \
        ieum capture --clean")]
pub(crate) struct Capture {
    /// Print the rules instead, as `nft -f` reads them.
    #[arg(long)]
    print: bool,
    /// Take all rules away.
    #[arg(long, conflicts_with = "print")]
    clean: bool,
    /// What the pod's annotations say, such as traffic.sidecar.istio.io/excludeInboundPorts=22; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = annotation)]
    annotation: Vec<(String, String)>,
    /// User whose traffic is the sidecar's own [default: 1337, with the group, when neither of the three is given].
    #[arg(long)]
    uid: Option<u32>,
    /// Group whose traffic is the sidecar's own.
    #[arg(long)]
    gid: Option<u32>,
    /// Mark of packets that are the sidecar's own.
    #[arg(long)]
    mark: Option<u32>,
    /// Port of the sidecar for connections out of the workload; 0 leaves them alone.
    #[arg(long, value_name = "PORT", default_value_t = OUTBOUND_PORT)]
    outbound_port: u16,
    /// Port of the sidecar for connections to the workload; 0 leaves them alone.
    #[arg(long, value_name = "PORT", default_value_t = INBOUND_PORT)]
    inbound_port: u16,
    /// Port of the sidecar for questions to name servers; 0 leaves them alone.
    #[arg(long, value_name = "PORT", default_value_t = DNS_PORT)]
    dns_port: u16,
}

fn annotation(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Capture {
    pub(crate) fn run(self) -> ExitCode {
        match self.act() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                eprintln!("error: {error}{cause}");
                ExitCode::FAILURE
            }
        }
    }

    fn act(self) -> Result<(), Box<dyn Error>> {
        if self.clean {
            return Ok(capture::clean()?);
        }
        let own = Own { mark: self.mark, uid: self.uid, gid: self.gid };
        let own = if own == Own::default() { Own::ISTIO } else { own };
        let annotations: BTreeMap<String, String> = self.annotation.into_iter().collect();
        let rules = Rules {
            outbound_port: Some(self.outbound_port).filter(|port| *port != 0),
            inbound_port: Some(self.inbound_port).filter(|port| *port != 0),
            dns_port: Some(self.dns_port).filter(|port| *port != 0),
            ..Rules::annotated(own, &annotations)?
        };
        if self.print {
            print!("{}", capture::script::script(&rules));
            return Ok(());
        }
        Ok(capture::apply(&rules)?)
    }
}
