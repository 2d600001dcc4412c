//! The ABIs a filter can tell apart, and how each lays out what the kernel hands to it.

/// One calling convention of the kernel, with numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X86,
    X32,
    Arm,
    S390x,
    Ppc64le,
    Aarch64,
    Riscv64,
    Loongarch64,
}

/// The names that profiles may list. Those without a value are known, but we have no numbers for
/// them: their calls meet the same end as those of an ABI that is not listed.
pub(super) const NAMES: [(&str, Option<Abi>); 18] = [
    ("SCMP_ARCH_AARCH64", Some(Abi::Aarch64)),
    ("SCMP_ARCH_ARM", Some(Abi::Arm)),
    ("SCMP_ARCH_LOONGARCH64", Some(Abi::Loongarch64)),
    ("SCMP_ARCH_MIPS", None),
    ("SCMP_ARCH_MIPS64", None),
    ("SCMP_ARCH_MIPS64N32", None),
    ("SCMP_ARCH_MIPSEL", None),
    ("SCMP_ARCH_MIPSEL64", None),
    ("SCMP_ARCH_MIPSEL64N32", None),
    ("SCMP_ARCH_PPC", None),
    ("SCMP_ARCH_PPC64", None),
    ("SCMP_ARCH_PPC64LE", Some(Abi::Ppc64le)),
    ("SCMP_ARCH_RISCV64", Some(Abi::Riscv64)),
    ("SCMP_ARCH_S390", None),
    ("SCMP_ARCH_S390X", Some(Abi::S390x)),
    ("SCMP_ARCH_X32", Some(Abi::X32)),
    ("SCMP_ARCH_X86", Some(Abi::X86)),
    ("SCMP_ARCH_X86_64", Some(Abi::X86_64)),
];

/// Where the arguments begin in `struct seccomp_data`.
const ARGUMENTS_OFFSET: u32 = 16;

impl Abi {
    /// The ABI of this program; `None` on a machine that the table lacks.
    pub(super) fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "x86" => Some(Self::X86),
            "arm" => Some(Self::Arm),
            "s390x" => Some(Self::S390x),
            "powerpc64" if cfg!(target_endian = "little") => Some(Self::Ppc64le),
            "aarch64" => Some(Self::Aarch64),
            "riscv64" => Some(Self::Riscv64),
            "loongarch64" => Some(Self::Loongarch64),
            _ => None,
        }
    }

    /// The column of the table that has its numbers.
    pub(super) fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Arm => 3,
            Self::S390x => 4,
            Self::Ppc64le => 5,
            Self::Aarch64 => 6,
            Self::Riscv64 => 7,
            Self::Loongarch64 => 8,
        }
    }

    /// The kernel's `AUDIT_ARCH_*` value: what a filter reads.
    pub(super) fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Arm => 0x4000_0028,
            Self::S390x => 0x8000_0016,
            Self::Ppc64le => 0xc000_0015,
            Self::Aarch64 => 0xc000_00b7,
            Self::Riscv64 => 0xc000_00f3,
            Self::Loongarch64 => 0xc000_0102,
        }
    }

    /// Whether the socket and System V calls come through `socketcall` and `ipc` too.
    pub(super) fn is_multiplexed(self) -> bool {
        matches!(self, Self::X86 | Self::S390x | Self::Ppc64le)
    }

    /// Byte offsets of an argument's low half, and of its high half where that is compared.
    /// x32 passes pointers of 32 bits and is compared as they are, which is libseccomp's way.
    pub(super) fn argument_offsets(self, index: u32) -> (u32, Option<u32>) {
        let start = ARGUMENTS_OFFSET + 8 * index;
        match self {
            Self::X86 | Self::X32 | Self::Arm => (start, None),
            Self::S390x => (start + 4, Some(start)),
            Self::X86_64 | Self::Ppc64le | Self::Aarch64 | Self::Riscv64 | Self::Loongarch64 => {
                (start, Some(start + 4))
            }
        }
    }
}
