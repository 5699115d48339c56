"""The paper's experiments: what is measured here, beside what is published."""
