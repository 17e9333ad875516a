"""Sources of published models: torchvision, timm and the Hugging Face hub."""
