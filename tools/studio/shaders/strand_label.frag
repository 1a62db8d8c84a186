#version 330
uniform float label; out vec4 colour;
void main() { colour = vec4(label / 255., 0, 0, 1); }
