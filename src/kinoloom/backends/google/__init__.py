"""How do Google's models make clips: Gemini Omni with a key, Veo in a project of Vertex AI?"""
