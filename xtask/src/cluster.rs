//! `cargo xtask cluster`: a real single-node Kubernetes in namespaces of its own. The scripts of
//! `testbed/cluster` do it, here and for the tests; these are their names on the command line.

pub mod parts;

use std::{path::PathBuf, process::Command};

use clap::Subcommand;

use crate::{
    places::Places,
    run::{Result, run},
};

/// The test cluster; `OBOL_CLUSTER`, a digit, tells several apart.
#[derive(Subcommand)]
pub enum Cluster {
    /// Bring it up with node and DNS ready, and print the path of its kubeconfig
    Up {
        /// From what `down --keep` left, as after a reboot
        #[arg(long)]
        keep: bool,
    },
    /// End it, and remove all that it made
    Down {
        /// Keep its state, images and volumes for `up --keep`
        #[arg(long)]
        keep: bool,
    },
    /// Show its components, node and pods
    Status,
    /// Import an image from a tar of an OCI layout
    Load {
        /// The tar
        tar: PathBuf,
    },
    /// Print the process id of a component
    Pid {
        /// etcd, containerd, apiserver, controllers, scheduler, kubelet or proxy
        component: String,
    },
    /// Kill a component (SIGKILL); it comes back by itself
    Kill {
        /// As for `pid`
        component: String,
    },
    /// Kill a component, and keep it away until `start`
    Stop {
        /// As for `pid`
        component: String,
    },
    /// Let a stopped component come back
    Start {
        /// As for `pid`
        component: String,
    },
}

/// Runs one of them.
pub fn cluster(command: &Cluster) -> Result {
    let places = Places::find()?;
    match command {
        Cluster::Up { keep } => {
            [parts::debian, parts::kubernetes, parts::images].iter().try_for_each(|part| part(&places))?;
            run(script(&places, "up.sh").args(keep.then_some("--keep")))
        }
        Cluster::Down { keep } => run(script(&places, "down.sh").args(keep.then_some("--keep"))),
        Cluster::Status => run(script(&places, "control.sh").arg("status")),
        Cluster::Load { tar } => run(script(&places, "control.sh").arg("load").arg(std::path::absolute(tar)?)),
        Cluster::Pid { component } => run(script(&places, "control.sh").args(["pid", component])),
        Cluster::Kill { component } => run(script(&places, "control.sh").args(["kill", component])),
        Cluster::Stop { component } => run(script(&places, "control.sh").args(["stop", component])),
        Cluster::Start { component } => run(script(&places, "control.sh").args(["start", component])),
    }
}

fn script(places: &Places, name: &str) -> Command {
    let mut script = Command::new(places.root.join("testbed/cluster").join(name));
    script.env("OBOL_CACHE", &places.cache);
    script
}
