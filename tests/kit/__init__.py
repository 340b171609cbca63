"""What tests share: `from kit.NAME import ...`. No test imports another test."""
