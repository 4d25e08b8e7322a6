"""The benchmark: TANS against transferability scores and plain rules, judged by real fine-tunings."""
