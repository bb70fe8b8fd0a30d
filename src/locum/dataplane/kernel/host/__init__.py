"""The host that a data plane shares with others: settings that it takes, keeps and gives back."""
