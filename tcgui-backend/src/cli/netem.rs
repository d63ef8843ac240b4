//! The parameters of an impairment, as options.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tcgui_shared::netem::LossModel;

use super::values::{self, BitsPerSecond, Milliseconds, Percent, Slot};

const LOSS_MODEL_HELP: &str = "Lose packets in bursts: gemodel:P,R[,BAD[,GOOD]] or state:P13,P31[,P32[,P23[,P14]]] of \
                               tc(8) [default: off]";

/// What netem is to do.
#[derive(Debug, Clone, PartialEq, Default, Args)]
#[command(next_help_heading = "Impairment")]
pub struct NetemArgs {
    /// Hold each packet for this time, for example 100ms [default: off]
    #[arg(long, value_name = "TIME", value_parser = values::milliseconds)]
    pub delay: Option<Milliseconds>,

    /// Vary the delay by up to this time [default: off]
    #[arg(long, value_name = "TIME", value_parser = values::milliseconds)]
    pub jitter: Option<Milliseconds>,

    /// Let each delay depend on the one before, for example 25% [default: off]
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub delay_correlation: Option<Percent>,

    /// Distribute the delay like this; needs --jitter [default: uniform]
    #[arg(long, value_enum, value_name = "NAME")]
    pub distribution: Option<DistributionName>,

    /// Lose this share of the packets, for example 1% [default: off]
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub loss: Option<Percent>,

    /// Let each loss depend on the one before [default: off]
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub loss_correlation: Option<Percent>,

    /// The loss model. Its help has brackets, which rustdoc reads as links.
    #[arg(long, value_name = "MODEL", help = LOSS_MODEL_HELP, value_parser = values::loss_model, conflicts_with_all = ["loss", "loss_correlation"])]
    pub loss_model: Option<LossModel>,

    /// Send this share of the packets twice [default: off]
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub duplicate: Option<Percent>,

    /// Let each duplication depend on the one before [default: off]
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub duplicate_correlation: Option<Percent>,

    /// Flip one bit in this share of the packets [default: off]
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub corrupt: Option<Percent>,

    /// Let each corruption depend on the one before [default: off]
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub corrupt_correlation: Option<Percent>,

    /// Send this share of the packets at once, before delayed ones [default: off]
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub reorder: Option<Percent>,

    /// Let each reordering depend on the one before [default: off]
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub reorder_correlation: Option<Percent>,

    /// Reorder only after this many packets [default: chosen by the daemon]
    #[arg(long, value_name = "COUNT", requires = "reorder")]
    pub gap: Option<u32>,

    /// Limit the rate, for example 10mbit [default: off]
    #[arg(long, value_name = "RATE", value_parser = values::rate)]
    pub rate: Option<BitsPerSecond>,

    /// Let the queue hold this many packets [default: chosen by the daemon, so that it loses none by itself]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,

    /// Mark packets instead of losing them, where the protocol permits it [default: off]
    #[arg(long)]
    pub ecn: bool,

    /// Begin the random numbers with this, for runs that are alike; needs Linux 6.6 [default: random]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Send packets together, this time after the last ones: MIN or MIN,MAX, for example 20ms,40ms [default: off]
    #[arg(long, value_name = "TIMES", value_parser = values::slot)]
    pub slot: Option<Slot>,

    /// Begin with this preset; the other options change it [default: none]
    #[arg(long, value_name = "ID")]
    pub preset: Option<String>,

    /// Begin with the preset in this JSON5 file, or in standard input with - [default: none]
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub file: Option<PathBuf>,
}

/// A distribution of the delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DistributionName {
    /// The bell
    Normal,
    /// Many short delays, few long ones
    Pareto,
    /// A quarter normal, three quarters Pareto
    #[value(name = "paretonormal")]
    ParetoNormal,
}
