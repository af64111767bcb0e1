//! One module per format in which weights lie on disk.

pub mod consolidated;
pub mod dcp;
pub mod deepspeed;
pub mod fsdp_ranks;
pub mod megatron_args;
pub mod megatron_ranks;
pub mod nanotron;
mod numbered_files;
pub mod safetensors;
pub mod torch_file;
pub mod whole_files;
