"""What `make compare` and `make finetune-demo` train."""
