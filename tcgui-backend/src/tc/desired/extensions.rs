//! The features that released frontends do not have: loss models, slots, cell framing, the queue of a rate limit.

use tcgui_shared::netem::{LossModel, NetemExtensions, QueueConfig, RateOverhead, SlotConfig};

use super::fields::{TcInputError, at_least, integer, percentage};
use super::limit::QueueLength;
use super::{Builder, MAX_DELAY_MS, MAX_JITTER_MS, from_wire, nanoseconds};
use crate::kernel::netem::{Loss, Probability, Random, Rate, Slot};

/// The longest queue, in ms.
const MAX_QUEUE_MS: f64 = 60_000.0;
/// How far the random loss beside a loss model may be from what the model loses, in percentage points.
const LOSS_TOLERANCE: f64 = 0.01;

impl Builder {
    /// Takes those that belong to no released feature.
    pub(super) fn extensions(
        &mut self,
        extensions: &NetemExtensions,
        loss: Random,
    ) -> Result<(), TcInputError> {
        if let Some(model) = &extensions.loss_model {
            let model = loss_model(model)?;
            if !loss.probability.is_zero() && !is_share_of(loss.probability, model) {
                return Err(TcInputError::Excluded {
                    field: "loss_model",
                    other: self.fields.loss,
                });
            }
            self.netem.loss = model;
        }
        if let Some(slot) = &extensions.slot {
            self.netem.slot = Some(self.slot(slot)?);
        }
        if extensions.ecn == Some(true) {
            self.netem.ecn = self.netem.loses();
            if !self.netem.ecn {
                self.no_effect("ecn", "loss");
            }
        }
        self.netem.seed = extensions.seed;
        Ok(())
    }

    fn slot(&mut self, slot: &SlotConfig) -> Result<Slot, TcInputError> {
        let time =
            |field, ms: Option<f64>| nanoseconds(field, ms.unwrap_or_default(), MAX_DELAY_MS);
        let min_ns = time("slot.min_ms", slot.min_ms)?;
        let max_ns = time("slot.max_ms", slot.max_ms)?;
        let delay_ns = time("slot.delay_ms", slot.delay_ms)?;
        let jitter_ms = slot.jitter_ms.unwrap_or_default();
        let jitter_ns = nanoseconds("slot.jitter_ms", jitter_ms, MAX_JITTER_MS)?;
        // The kernel counts both in a signed number.
        let count = |field, count: Option<u32>| match count {
            Some(count) => integer(field, count, 1, i32::MAX.into()),
            None => Ok(0),
        };
        let unspaced = Slot {
            max_packets: count("slot.packets", slot.packets)?,
            max_bytes: count("slot.bytes", slot.bytes)?,
            ..Slot::default()
        };
        if let Some(distribution) = slot.distribution {
            if min_ns > 0 || max_ns > 0 {
                return Err(TcInputError::Excluded {
                    field: "slot.distribution",
                    other: "slot.min_ms and slot.max_ms",
                });
            }
            if jitter_ns == 0 {
                return Err(TcInputError::Missing {
                    field: "slot.jitter_ms",
                });
            }
            return Ok(Slot {
                delay_ns,
                jitter_ns: self.capped(jitter_ns),
                distribution: Some(from_wire(distribution)),
                ..unspaced
            });
        }
        if delay_ns > 0 || jitter_ns > 0 {
            return Err(TcInputError::Missing {
                field: "slot.distribution",
            });
        }
        if min_ns == 0 && max_ns == 0 {
            return Err(TcInputError::Missing {
                field: "slot.min_ms",
            });
        }
        Ok(Slot {
            min_ns,
            max_ns: max_ns.max(min_ns),
            ..unspaced
        })
    }
}

/// Returns the share of packets in percent that a loss model loses; `None` if its probabilities are none, or contradict each
/// other.
pub fn share_of_model(model: &LossModel) -> Option<f64> {
    let share = loss_model(model).ok()?.share()?;
    Some(share.percent())
}

/// Returns whether a random loss is what a model loses: frontends that do not know models are told so, and send it back.
fn is_share_of(loss: Probability, model: Loss) -> bool {
    let difference = |share: Probability| (share.percent() - loss.percent()).abs();
    model
        .share()
        .is_some_and(|share| difference(share) <= LOSS_TOLERANCE)
}

fn loss_model(model: &LossModel) -> Result<Loss, TcInputError> {
    Ok(match *model {
        LossModel::GilbertElliott {
            p,
            r,
            bad_loss,
            good_loss,
        } => Loss::GilbertElliott {
            p: percentage("loss_model.p", p)?,
            r: percentage("loss_model.r", r)?,
            h: percentage("loss_model.bad_loss", bad_loss)?.contrary(),
            k1: percentage("loss_model.good_loss", good_loss)?,
        },
        LossModel::FourState {
            p13,
            p31,
            p32,
            p23,
            p14,
        } => Loss::FourState {
            p13: percentage("loss_model.p13", p13)?,
            p31: percentage("loss_model.p31", p31)?,
            p32: percentage("loss_model.p32", p32)?,
            p14: percentage("loss_model.p14", p14)?,
            p23: percentage("loss_model.p23", p23)?,
        },
    })
}

/// The kernel adds to the length of a packet without looking whether it becomes negative
/// (`packet_time_ns`), so no more is taken off than the shortest packet has: 20 bytes of IP header.
pub(super) fn rate_overhead(overhead: RateOverhead) -> Result<Rate, TcInputError> {
    const SHORTEST: i64 = 20;
    const LONGEST: i64 = u16::MAX as i64;
    let RateOverhead {
        packet,
        cell_size,
        cell,
    } = overhead;
    Ok(Rate {
        bytes_per_s: 0,
        packet_overhead: integer("rate_overhead.packet", packet, -SHORTEST, LONGEST)?,
        cell_size: integer("rate_overhead.cell_size", cell_size, 0, LONGEST)?,
        cell_overhead: integer("rate_overhead.cell", cell, 0, LONGEST)?,
    })
}

/// The bytes win when both are given: a time may be rounded.
pub(super) fn queue_length(queue: QueueConfig) -> Result<QueueLength, TcInputError> {
    match (queue.bytes, queue.ms) {
        (Some(bytes), _) => at_least("queue.bytes", bytes, 1).map(QueueLength::Bytes),
        (None, Some(ms)) => nanoseconds("queue.ms", ms, MAX_QUEUE_MS).map(QueueLength::Time),
        (None, None) => Err(TcInputError::Missing { field: "queue.ms" }),
    }
}
