//! Block I/O: weights, and what a device may read and write in a second.

use anyhow::{Context, Result, ensure};

use super::{clean_target, quantity};

/// As typed.
#[derive(Debug, Default, clap::Args)]
#[group(id = "block")]
pub(super) struct Words {
    /// Weight among those that want the disks, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// The same for one disk
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    blkio_weight_device: Vec<String>,
    /// How much may be read from a disk in a second
    #[arg(long, value_name = "DEVICE:SIZE")]
    device_read_bps: Vec<String>,
    /// How much may be written to a disk in a second
    #[arg(long, value_name = "DEVICE:SIZE")]
    device_write_bps: Vec<String>,
    /// How often a disk may be read from in a second
    #[arg(long, value_name = "DEVICE:N")]
    device_read_iops: Vec<String>,
    /// How often a disk may be written to in a second
    #[arg(long, value_name = "DEVICE:N")]
    device_write_iops: Vec<String>,
}

/// Checked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) weight: Option<u16>,
    pub(crate) disks: Vec<Disk>,
}

/// What is wished of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Its node on the host.
    pub(crate) path: String,
    /// Which of the runtime specification's lists it stands in.
    pub(crate) list: &'static str,
    /// A weight, or a rate.
    pub(crate) value: u64,
}

impl Words {
    pub(super) fn resolve(self) -> Result<Block> {
        let weight = |value: u64| {
            ensure!((10..=1000).contains(&value), "a weight is from 10 to 1000");
            Ok(value)
        };
        let size = |word: &str| Ok(quantity::size(word)?.unsigned_abs());
        let number =
            |word: &str| word.parse::<u64>().with_context(|| format!("bad number {word:?}"));
        let mut disks = Vec::new();
        let mut read = |flag: &str, list, words: &[String], value: &dyn Fn(&str) -> Result<u64>| {
            for word in words {
                let disk = Disk::parse(word, list, value);
                disks.push(disk.with_context(|| format!("invalid {flag} {word:?}"))?);
            }
            anyhow::Ok(())
        };
        let weight_of = |word: &str| weight(number(word)?);
        read("--blkio-weight-device", "weightDevice", &self.blkio_weight_device, &weight_of)?;
        read("--device-read-bps", "throttleReadBpsDevice", &self.device_read_bps, &size)?;
        read("--device-write-bps", "throttleWriteBpsDevice", &self.device_write_bps, &size)?;
        read("--device-read-iops", "throttleReadIOPSDevice", &self.device_read_iops, &number)?;
        read("--device-write-iops", "throttleWriteIOPSDevice", &self.device_write_iops, &number)?;
        // Zero is docker's word for none.
        let all = self.blkio_weight.filter(|&weight| weight != 0);
        if let Some(value) = all {
            weight(value.into()).with_context(|| format!("invalid --blkio-weight {value}"))?;
        }
        Ok(Block { weight: all, disks })
    }
}

impl Disk {
    fn parse(word: &str, list: &'static str, value: &dyn Fn(&str) -> Result<u64>) -> Result<Self> {
        let (path, text) = word.rsplit_once(':').context("want DEVICE:VALUE")?;
        let value = value(text)?;
        ensure!(value > 0, "zero is no limit: leave it out");
        Ok(Self { path: clean_target(path).context("the device")?, list, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_a_node_and_a_value() {
        let words = Words {
            blkio_weight: Some(300),
            blkio_weight_device: vec!["/dev/sda:500".into()],
            device_read_bps: vec!["/dev/sda:1mb".into()],
            device_write_iops: vec!["/dev/sdb:7".into()],
            ..Words::default()
        };
        let block = words.resolve().unwrap();
        let disks = block.disks.iter().map(|disk| (disk.path.as_str(), disk.list, disk.value));
        assert_eq!(block.weight, Some(300));
        assert_eq!(
            disks.collect::<Vec<_>>(),
            [
                ("/dev/sda", "weightDevice", 500),
                ("/dev/sda", "throttleReadBpsDevice", 1 << 20),
                ("/dev/sdb", "throttleWriteIOPSDevice", 7),
            ]
        );
        for bad in ["", "/dev/sda", "sda:1", "/dev/sda:", "/dev/sda:0", "/dev/sda:x"] {
            let words = Words { device_read_bps: vec![bad.into()], ..Words::default() };
            assert!(words.resolve().is_err(), "{bad:?}");
        }
        for bad in [9, 1001] {
            assert!(Words { blkio_weight: Some(bad), ..Words::default() }.resolve().is_err());
        }
    }
}
