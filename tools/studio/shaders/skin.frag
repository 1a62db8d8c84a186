#version 330
// Skin. A: occlusion with closed and with open jaw, shade of the hair, inside of the mouth.
#include "surface.glsl"
uniform sampler2D skin_colour; uniform sampler2D skin_relief;
uniform float jaw;
uniform vec3 lips_at;        // z of the front of the lips, opening 0 to 1, y of the upper lip
uniform vec3 part;           // x, lowest y and strength of the parting
void main() {
    vec3 v = normalize(eye - P), n0 = normalize(N);
    float ao = mix(A.x, A.y, jaw), inside = A.w;
    // The occlusion of the closed mouth is too dark for the inner side of lips and cheeks once they part.
    ao = max(ao, inside * .70 * smoothstep(.90, .10, lips_at.x - R.z));
    vec4 baked = texture(skin_colour, U), relief = texture(skin_relief, U);
    float lips = baked.a * (1. - inside), oil = relief.a / .6;
    vec3 c = baked.rgb * baked.rgb * (baked.rgb * .2 + .8);   // sRGB to linear, nearly
    vec3 g = (relief.rgb - .5) / 1.2;
    vec3 n = normalize(n0 - (1. - .6 * lips) * (g - dot(g, n0) * n0) * .22);
    if (lips > .05) n = normalize(n + vec3(sin(R.x * 150. + noise(R * 6.) * 6.) * .04 * lips, 0, 0));

    float line = exp(-pow((R.x - part.x - .018 * sin(R.z * 21.)) / .012, 2.)) * smoothstep(part.y, part.y + .1, R.y)
        * smoothstep(.25, .65, R.z);
    float hair = A.z * (1. - part.z * line);
    c = mix(c, vec3(.070, .038, .021), hair);

    float sun = lit(S, R, .0050, .022);
    vec3 sun_colour = pow(vec3(sun), vec3(.80, 1., 1.06));
    vec3 open = pow(vec3(ao), vec3(.92, 1.0, 1.04));
    const vec3 wrap = vec3(.42, .21, .14);
    vec3 soft = normalize(mix(n, n0, .85));
    vec3 key = wrapped(dot(n, KEY), wrap);
    key.r = wrapped(dot(soft, KEY), wrap).r;
    vec3 light = KEY_COLOUR * key * mix(sun_colour, vec3(1), .08)
        + FILL_COLOUR * wrapped(dot(soft, FILL), wrap) * mix(open, vec3(1), .3)
        + (LAMP_COLOUR * wrapped(dot(soft, LAMP), wrap * .5) * .62 + WINDOW_COLOUR * wrapped(dot(soft, WINDOW), wrap * .5) * .8)
            * pow(ao, 1.6)
        + ambient(n) * open;
    vec3 x = c * light * mix(vec3(1), open, .42);
    float broad = mix(.54, .36, lips), narrow = mix(.36, .22, lips);
    float shine = ggx(n, v, KEY, broad) + mix(.26, .9, lips) * ggx(n, v, KEY, narrow);
    x += (KEY_COLOUR * shine * sun + FILL_COLOUR * ggx(n, v, FILL, broad) * 1.3 * ao) * oil * 3.1416 * .85 * (1. - inside) * (1. - hair);
    float rim = pow(1. - max(dot(n0, v), 0.), 3.);
    x += (c * .14 + LAMP_COLOUR * c * .12 * clamp(n0.x + .3, 0., 1.)) * rim * ao * (1. - inside);
    x = x * mix(1., .20 + .70 * ao, inside) + inside * vec3(.050, .014, .011);
    colour = vec4(film(x), 1);
}
